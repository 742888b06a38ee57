/*
 * A PKCS#11 module that hands every call on to the module named by SHIM_MODULE, and then does what
 * SHIM_PLAN says: words of the form FUNCTION:ACTION[=VALUE][@N], separated by blanks.
 *
 *     print       writes lines to standard output and standard error, which look like answers
 *     flood       writes a mebibyte to each
 *     sleep=S     waits so many seconds, deaf to no signal
 *     hang        waits for ever
 *     crash       accesses memory that is not there
 *     exit=N      ends the process as exit(3) does
 *     abort       ends the process as abort(3) does
 *     error=N     returns N instead of what the other module returned
 *     grandchild  leaves a process behind, for SHIM_SECONDS, that holds every descriptor
 *
 * With @N the action is taken at the Nth call of that function only (counted from 1). Every action
 * comes after the other module did its work: what it decrypted is then in this process's memory.
 *
 * The function list is taken as what it is on every 64-bit system: a version and an array of
 * pointers, in the order of PKCS #11 v2.40. Arguments are passed on as they came, as machine words.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FUNCTIONS 68
#define NOT_LOADED 0x5UL /* CKR_GENERAL_ERROR */

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word);

struct function_list {
    unsigned char version[2];
    function functions[FUNCTIONS];
};

static struct function_list ours;
static struct function_list *theirs;

static const char LINES[] = "cipher: NULL\nerror: printed by a module\n# no field\n";

static void print(int descriptor, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(descriptor, text, length);
        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

static void flood(int descriptor)
{
    static char block[4096];
    memset(block, 'x', sizeof block);
    block[sizeof block - 1] = '\n';
    for (int i = 0; i < 256; i++)
        print(descriptor, block, sizeof block);
}

static void leave_grandchild(void)
{
    const char *seconds = getenv("SHIM_SECONDS");
    if (fork() == 0) {
        alarm(0); /* nothing is inherited of that, but it says what is meant: it goes on */
        usleep((useconds_t)(atof(seconds ? seconds : "30") * 1e6));
        _exit(0);
    }
}

static word act(const char *action, word result)
{
    const char *value = strchr(action, '=');
    value = value ? value + 1 : "";
    if (strncmp(action, "print", 5) == 0) {
        printf("%s", LINES);
        fflush(stdout);
        print(2, LINES, sizeof LINES - 1);
    } else if (strncmp(action, "flood", 5) == 0) {
        flood(1);
        flood(2);
    } else if (strncmp(action, "sleep", 5) == 0) {
        usleep((useconds_t)(atof(value) * 1e6));
    } else if (strncmp(action, "hang", 4) == 0) {
        for (;;)
            pause();
    } else if (strncmp(action, "crash", 5) == 0) {
        raise(SIGSEGV);
    } else if (strncmp(action, "exit", 4) == 0) {
        exit(atoi(value));
    } else if (strncmp(action, "abort", 5) == 0) {
        abort();
    } else if (strncmp(action, "error", 5) == 0) {
        result = strtoul(value, NULL, 0);
    } else if (strncmp(action, "grandchild", 10) == 0) {
        leave_grandchild();
    }
    return result;
}

/* Does what the plan says of the count-th call of the function called name. */
static word misbehave(const char *name, long count, word result)
{
    static char plan[4096];
    const char *given = getenv("SHIM_PLAN");
    char *rest = plan;
    if (given == NULL)
        return result;
    snprintf(plan, sizeof plan, "%s", given);
    for (char *step; (step = strsep(&rest, " ")) != NULL;) {
        char *action = strchr(step, ':');
        char *at = strchr(step, '@');
        if (action == NULL || (at != NULL && atol(at + 1) != count))
            continue;
        if (at != NULL)
            *at = '\0';
        *action++ = '\0';
        if (strcmp(step, name) == 0)
            result = act(action, result);
    }
    return result;
}

/* Counts the calls of one function. hwkm unloads a module that fails, so the environment counts. */
static long counted(const char *name)
{
    char variable[64], number[24];
    snprintf(variable, sizeof variable, "SHIM_%s", name);
    const char *before = getenv(variable);
    long count = (before ? atol(before) : 0) + 1;
    snprintf(number, sizeof number, "%ld", count);
    setenv(variable, number, 1);
    return count;
}

#define WRAP(name, index)                                                    \
    static word name(word a, word b, word c, word d, word e, word f)         \
    {                                                                        \
        word result = theirs->functions[index](a, b, c, d, e, f);            \
        return misbehave(#name, counted(#name), result);                     \
    }

WRAP(C_Initialize, 0)
WRAP(C_Finalize, 1)
WRAP(C_GetSlotList, 4)
WRAP(C_OpenSession, 12)
WRAP(C_CloseSession, 13)
WRAP(C_Login, 18)
WRAP(C_FindObjectsInit, 26)
WRAP(C_Encrypt, 30)
WRAP(C_Decrypt, 34)
WRAP(C_Sign, 43)
WRAP(C_GenerateRandom, 64)

static int load(void)
{
    const char *path = getenv("SHIM_MODULE");
    void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    word (*get_list)(struct function_list **) = NULL;
    if (module != NULL)
        *(void **)&get_list = dlsym(module, "C_GetFunctionList");
    return get_list != NULL && get_list(&theirs) == 0;
}

word C_GetFunctionList(struct function_list **list)
{
    if (theirs == NULL && !load())
        return NOT_LOADED;
    ours = *theirs;
    ours.functions[0] = C_Initialize;
    ours.functions[1] = C_Finalize;
    *(void **)&ours.functions[3] = (void *)C_GetFunctionList;
    ours.functions[4] = C_GetSlotList;
    ours.functions[12] = C_OpenSession;
    ours.functions[13] = C_CloseSession;
    ours.functions[18] = C_Login;
    ours.functions[26] = C_FindObjectsInit;
    ours.functions[30] = C_Encrypt;
    ours.functions[34] = C_Decrypt;
    ours.functions[43] = C_Sign;
    ours.functions[64] = C_GenerateRandom;
    *list = &ours;
    return 0;
}
