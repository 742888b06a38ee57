/*
 * A PKCS#11 module that hands every call on to the module named by FAULTS_MODULE, and fails the
 * calls that the file named by FAULTS_STATE asks for. The file holds a struct state; it is mapped,
 * so that it can be read and changed while the process runs. faulty.py has its other half.
 *
 * The function list is taken as what it is on every 64-bit system: a version and an array of
 * pointers, in the order of PKCS #11 v2.40. Arguments are passed on as they came, as machine words.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FUNCTIONS 68
#define INITIALIZE 0
#define GET_FUNCTION_LIST 3
#define LOGIN 18
#define LOGINS 64
#define PIN_BYTES 32
#define NOT_LOADED 0x5UL /* CKR_GENERAL_ERROR */

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);

struct function_list {
    unsigned char version[2];
    function functions[FUNCTIONS];
};

struct state {
    word fail_at;           /* which of the counted calls fails, from 1; 0: none */
    word code;              /* what it returns */
    word onwards;           /* 1: all later ones fail too; 2: but C_Initialize makes all well */
    word after;             /* whether the other module does its work all the same */
    word chosen[FUNCTIONS]; /* whose calls are counted */
    word counted;           /* how many there were */
    word failed;            /* how many failed */
    word calls[FUNCTIONS];  /* of each function, chosen or not */
    word logins;            /* how many PINs follow */
    char pins[LOGINS][PIN_BYTES];
};

static struct function_list ours;
static struct function_list *theirs;
static struct state *state;

static void remember_pin(const char *pin, word length)
{
    char *place = state->pins[state->logins++ % LOGINS];
    memset(place, 0, PIN_BYTES);
    if (pin != NULL)
        memcpy(place, pin, length < PIN_BYTES ? length : PIN_BYTES - 1);
}

static int fails(int index)
{
    state->calls[index]++;
    if (!state->chosen[index])
        return 0;
    state->counted++;
    if (index == INITIALIZE && state->onwards == 2 && state->failed > 0)
        state->fail_at = 0;
    if (state->fail_at == 0 || state->counted < state->fail_at)
        return 0;
    return state->counted == state->fail_at || state->onwards;
}

static word call(int index, word a, word b, word c, word d, word e, word f, word g, word h)
{
    if (index == LOGIN)
        remember_pin((const char *)c, d);
    int failing = fails(index);
    state->failed += (word)failing;
    if (failing && !state->after)
        return state->code;
    word result = theirs->functions[index](a, b, c, d, e, f, g, h);
    return failing ? state->code : result;
}

#define WRAP(n)                                                                  \
    static word call_##n(word a, word b, word c, word d, word e, word f, word g, word h) \
    {                                                                            \
        return call(n, a, b, c, d, e, f, g, h);                                  \
    }
#define NAME(n) call_##n,
#define TEN(M, t)                                                                \
    M(t##0) M(t##1) M(t##2) M(t##3) M(t##4) M(t##5) M(t##6) M(t##7) M(t##8) M(t##9)
#define ALL(M)                                                                   \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9)                            \
    TEN(M, 1) TEN(M, 2) TEN(M, 3) TEN(M, 4) TEN(M, 5)                            \
    M(60) M(61) M(62) M(63) M(64) M(65) M(66) M(67)

ALL(WRAP)
static const function wrapped[FUNCTIONS] = {ALL(NAME)};

__attribute__((destructor)) static void unmap_state(void)
{
    if (state != NULL)
        munmap(state, sizeof *state);
    state = NULL;
}

static int map_state(void)
{
    const char *path = getenv("FAULTS_STATE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    unmap_state();
    void *mapped = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED)
        return 0;
    state = mapped;
    return 1;
}

static int load(void)
{
    const char *path = getenv("FAULTS_MODULE");
    void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    word (*get_list)(struct function_list **) = NULL;
    if (module != NULL)
        *(void **)&get_list = dlsym(module, "C_GetFunctionList");
    return get_list != NULL && get_list(&theirs) == 0;
}

word C_GetFunctionList(struct function_list **list)
{
    if ((theirs == NULL && !load()) || !map_state())
        return NOT_LOADED;
    ours = *theirs;
    memcpy(ours.functions, wrapped, sizeof wrapped);
    *(void **)&ours.functions[GET_FUNCTION_LIST] = (void *)C_GetFunctionList;
    *list = &ours;
    return 0;
}
