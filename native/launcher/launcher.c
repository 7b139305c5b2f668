/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `rune` as a program: Python's library linked in, the modules of its commands in one archive inside (archive.py).
 *
 * The interpreter starts with its core alone (PEP 587, "Multi-Phase Initialization Private Provisional API"), which a
 * command like `run` can do with: no path to search, no codecs, no sys.stdin. What needs more has the rest made by
 * upgrade(). boot.py decides when. docs/decisions/0010 says what this is worth and what it leans on.
 *
 * RUNE_PYTHON=1 in the environment, or a host without the standard library of this Python: the same sources run with
 * the host's python3.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <marshal.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "json.h"

/* archive.py's work: boot.py's code, then what it reads itself. */
extern const char archive_begin[], archive_end[], boot_begin[], boot_end[];
__asm__(".section .rodata\n.balign 16\n"
        "archive_begin: .incbin \"" ARCHIVE "\"\narchive_end:\n.balign 16\n"
        "boot_begin: .incbin \"" BOOT "\"\nboot_end:\n.previous\n");

/* Private, but in the static library: without it the module _signal crashes before the upgrade. */
extern int _PySignal_Init(int install_signal_handlers);

static char library[PATH_MAX]; /* the folder that holds the package `inclavare` */

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "rune: %s\n", what);
    exit(1);
}

/*
 * What we open ourselves must not become a container's stdio, so that has to be open first. Whatever else leaked into
 * us must not reach a container, or be a way out of it (CVE-2024-21626). --preserve-fds names its fds to each program.
 */
static void guard_stdio(void) {
    struct pollfd stdio[3] = {{.fd = 0}, {.fd = 1}, {.fd = 2}};
    if (poll(stdio, 3, 0) > 0)
        for (int fd = 0; fd < 3; fd++)
            if (stdio[fd].revents & POLLNVAL && open("/dev/null", O_RDWR) < 0)
                fail("cannot open /dev/null");
}

static void guard_fds(void) {
    if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        fail("cannot set fds to be closed: rune needs Linux 5.11 or later");
}

static void require(PyStatus status) {
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

/* Of an installation, or of a checkout that was built. */
static void find_library(void) {
    static const char *const places[] = {"/../lib/inclavare", "/../../src"};
    ssize_t size = readlink("/proc/self/exe", library, sizeof library - 64);
    if (size < 0)
        fail("cannot read /proc/self/exe: rune needs a mounted /proc");
    library[size] = 0;
    char *end = strrchr(library, '/');
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        strcpy(end, places[i]);
        size_t length = strlen(library);
        strcpy(library + length, "/inclavare/__init__.py");
        int found = access(library, R_OK) == 0;
        library[length] = 0;
        if (found)
            return;
    }
    fail("its library is not beside it: install it with `make install`");
}

static _Noreturn void run_with_python(int argc, char **argv) {
    char program[PATH_MAX + 32];
    char **words = calloc((size_t)argc + 3, sizeof *words);
    if (!words)
        fail("out of memory");
    snprintf(program, sizeof program, "%s/inclavare/__main__.py", library);
    words[0] = "python3";
    words[1] = "-IS";
    words[2] = program;
    memcpy(words + 3, argv + 1, (size_t)argc * sizeof *words);
    execv("/usr/bin/python3", words);
    fail("cannot execute /usr/bin/python3");
}

/*
 * Memory for objects comes in arenas of 1 MiB. The first two, which are all that most commands use, are one huge page
 * where the kernel gives it: 300 page faults less.
 */
enum { HUGE_PAGE = 2 << 20 };
static char *pool, *pool_end;

static void *take_arena(void *context, size_t size) {
    (void)context;
    if (pool && size <= (size_t)(pool_end - pool)) {
        pool += size;
        return pool - size;
    }
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void give_back_arena(void *context, void *arena, size_t size) {
    (void)context;
    munmap(arena, size);
}

static void prepare_arenas(void) {
    char *space = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space != MAP_FAILED) {
        pool = (char *)(((uintptr_t)space + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
        pool_end = pool + HUGE_PAGE;
        madvise(pool, HUGE_PAGE, MADV_HUGEPAGE); /* it is as good without, only slower */
    }
    PyObjectArenaAllocator allocator = {NULL, take_arena, give_back_arena};
    PyObject_SetArenaAllocator(&allocator);
}

static PyObject *upgrade(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    require(_Py_InitializeMain());
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {{"upgrade", upgrade, METH_NOARGS, "Make the rest of the interpreter."}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_launcher", NULL, -1, functions, 0, 0, 0, 0};

static PyObject *make_module(void) {
    PyObject *module = PyModule_Create(&definition);
    PyObject *archive = PyMemoryView_FromMemory((char *)archive_begin, archive_end - archive_begin, PyBUF_READ);
    if (!module || !archive || PyModule_AddObject(module, "archive", archive) < 0 ||
        PyModule_AddObject(module, "library", PyUnicode_DecodeFSDefault(library)) < 0)
        return NULL;
    return module;
}

static void set_up(int argc, char **argv) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    require(Py_PreInitialize(&before));
    if (PyImport_AppendInittab("_launcher", make_module) < 0 || PyImport_AppendInittab("_json", make_json_module) < 0)
        fail("out of memory");
    prepare_arenas();
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    config._init_main = 0;
    /* All that the search for a home would set. */
    struct {
        wchar_t **field;
        const char *value;
    } paths[] = {{&config.program_name, "rune"},
                 {&config.executable, "/usr/bin/python3"},
                 {&config.home, "/usr"},
                 {&config.prefix, "/usr"},
                 {&config.exec_prefix, "/usr"},
                 {&config.base_prefix, "/usr"},
                 {&config.base_exec_prefix, "/usr"}};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        require(PyConfig_SetBytesString(&config, paths[i].field, paths[i].value));
    require(PyConfig_SetBytesArgv(&config, argc, argv));
    config.module_search_paths_set = 1;
    const char *places[] = {library, STDLIB};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        wchar_t *place = Py_DecodeLocale(places[i], NULL);
        if (!place)
            fail("out of memory");
        require(PyWideStringList_Append(&config.module_search_paths, place));
        PyMem_RawFree(place);
    }
    require(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    _PySignal_Init(0);
    PyGC_Disable(); /* a command ends before garbage matters */
}

/* sys.argv comes with the upgrade otherwise. */
static int set_arguments(int argc, char **argv) {
    PyObject *list = PyList_New(argc);
    for (int i = 0; list && i < argc; i++) {
        PyObject *word = PyUnicode_DecodeUTF8(argv[i], (Py_ssize_t)strlen(argv[i]), "surrogateescape");
        if (!word)
            return -1;
        PyList_SET_ITEM(list, i, word);
    }
    return list ? PySys_SetObject("argv", list) : -1;
}

int main(int argc, char **argv) {
    guard_stdio();
    find_library();
    const char *python = getenv("RUNE_PYTHON");
    if ((python && *python && strcmp(python, "0") != 0) || access(STDLIB "/os.py", R_OK) < 0)
        run_with_python(argc, argv);
    guard_fds();
    set_up(argc, argv);
    PyObject *globals = PyDict_New();
    PyObject *code = PyMarshal_ReadObjectFromString(boot_begin, boot_end - boot_begin);
    if (!globals || !code || set_arguments(argc, argv) < 0 ||
        PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) < 0 ||
        !PyEval_EvalCode(code, globals, globals))
        PyErr_Print();
    return 1; /* boot.py ends the process itself */
}
