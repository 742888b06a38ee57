/*
 * A user database that nobody answers for: /etc/nsswitch.conf names it as "slow". As long as the
 * file SLOW_NSS_FLAG is there every lookup takes an hour; else it knows nobody, at once.
 */

#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

static enum nss_status look_up(void)
{
    const char *flag = getenv("SLOW_NSS_FLAG");
    if (flag != NULL && access(flag, F_OK) == 0)
        sleep(3600);
    return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_slow_getpwuid_r(uid_t uid, struct passwd *result, char *buffer, size_t length,
                                     int *error)
{
    (void)uid, (void)result, (void)buffer, (void)length, (void)error;
    return look_up();
}

enum nss_status _nss_slow_getpwnam_r(const char *name, struct passwd *result, char *buffer,
                                     size_t length, int *error)
{
    (void)name, (void)result, (void)buffer, (void)length, (void)error;
    return look_up();
}

enum nss_status _nss_slow_getgrnam_r(const char *name, struct group *result, char *buffer,
                                     size_t length, int *error)
{
    (void)name, (void)result, (void)buffer, (void)length, (void)error;
    return look_up();
}

enum nss_status _nss_slow_initgroups_dyn(const char *name, gid_t group, long int *start,
                                         long int *size, gid_t **groups, long int limit, int *error)
{
    (void)name, (void)group, (void)start, (void)size, (void)groups, (void)limit, (void)error;
    return look_up();
}
