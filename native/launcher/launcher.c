/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `rune` as a program: Python's library linked in, and started when the program was built (snapshot.c). begin.py has
 * the Python side; docs/decisions/0010 says what this is worth and what it leans on.
 *
 * RUNE_PYTHON=1 in the environment: the same sources run with the host's python3.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_runtime.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <marshal.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "json.h"
#include "pages.h"
#include "snapshot.h"
#include "syscall.h"

static char library[PATH_MAX + 32]; /* the folder that holds the package `inclavare` */
static PyObject *enter;             /* begin.py's function */
static PyObject *launcher;          /* the module _launcher */
static PyObject *environment;       /* the dictionary that module os reads */

_Noreturn void fail(const char *what) {
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

/* What Python could not do, it says, and that is the end. */
static void *need(void *result) {
    if (!result) {
        PyErr_Print();
        exit(1);
    }
    return result;
}

/* Of an installation, or of a checkout that was built. */
static void find_library(void) {
    static const struct {
        int up; /* from the program's path */
        const char *path;
    } places[] = {{2, "lib/inclavare"}, {3, "src"}};
    static char program[PATH_MAX], module[PATH_MAX + 64];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program);
    if (size < 0 || size == sizeof program)
        fail("cannot read /proc/self/exe: rune needs a mounted /proc");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int end = (int)size;
        for (int up = places[i].up; up > 0 && end > 0; end--)
            up -= program[end - 1] == '/';
        snprintf(library, sizeof library, "%.*s/%s", end, program, places[i].path);
        snprintf(module, sizeof module, "%s/inclavare/__init__.py", library);
        if (access(module, R_OK) == 0)
            return;
    }
    fail("its library is not beside it: install it with `make install`");
}

static _Noreturn void run_with_python(int argc, char **argv) {
    char program[sizeof library + 32];
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

/* --- when it is built ---------------------------------------------------------------------------- */

static PyMethodDef functions[] = {{"syscall", _PyCFunction_CAST(py_syscall), METH_FASTCALL, NULL},
                                  {"rest", _PyCFunction_CAST(py_rest), METH_FASTCALL, NULL},
                                  {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_launcher", NULL, -1, functions, 0, 0, 0, 0};

static PyObject *make_module(void) {
    return PyModule_Create(&definition);
}

static void start_python(void) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    require(Py_PreInitialize(&before));
    if (PyImport_AppendInittab("_launcher", make_module) < 0 || PyImport_AppendInittab("_json", make_json_module) < 0)
        fail("out of memory");
    PyObjectArenaAllocator allocator = {NULL, take_arena, give_back_arena};
    PyObject_SetArenaAllocator(&allocator);
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    config.optimization_level = 2;
    config.use_hash_seed = 1; /* the same program from the same sources; what is hashed is the administrator's */
    config.hash_seed = 0;
    config.parse_argv = 0;
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
    config.module_search_paths_set = 1;
    require(PyWideStringList_Append(&config.module_search_paths, L"/nonexistent")); /* until the library is known */
    require(PyWideStringList_Append(&config.module_search_paths, L"" STDLIB));
    require(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    PyGC_Disable(); /* a command ends before garbage matters */
}

/* begin.py imports what is in `modules`, build.py's file. */
static void import_all(const char *modules) {
    struct stat status;
    int fd = open(modules, O_RDONLY | O_CLOEXEC);
    char *content =
        fd >= 0 && !fstat(fd, &status) ? mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    if (content == MAP_FAILED)
        fail("cannot read its modules");
    PyObject *all = need(PyMarshal_ReadObjectFromString(content, status.st_size));
    PyObject *begin = PyTuple_GetItem(need(PyDict_GetItemString(all, "begin")), 0);
    PyObject *code = need(PyMarshal_ReadObjectFromString(PyBytes_AsString(begin), PyBytes_Size(begin)));
    launcher = need(PyImport_ImportModule("_launcher"));
    environment = need(PyObject_GetAttrString(need(PyImport_ImportModule("posix")), "environ"));
    PyModule_AddObject(launcher, "modules", all);
    PyObject *globals = need(Py_BuildValue("{sO}", "__builtins__", PyEval_GetBuiltins()));
    need(PyEval_EvalCode(code, globals, globals));
    enter = need(PyDict_GetItemString(globals, "enter"));
    close(fd);
}

/*
 * Lists of free objects and the cache of types' attributes lead to whatever was used last, all over the memory: each
 * start would write there.
 */
static void forget(void) {
    PyGC_Enable();
    PyGC_Collect();
    PyGC_Disable();
    PyType_ClearCache();
}

/* --- each time ----------------------------------------------------------------------------------- */

/* This is a fork, but of a process whose C library is another one: its key for the thread's state is not there. */
static void resume(void) {
    PyThreadState *state = PyThreadState_Get();
    state->thread_id = PyThread_get_thread_ident();
    Py_tss_t *key = &_PyRuntime.gilstate.autoTSSkey;
    key->_is_initialized = 0;
    if (PyThread_tss_create(key) || PyThread_tss_set(key, state))
        fail("out of memory");
    PyOS_AfterFork_Child();
}

static void set_environment(void) {
    PyDict_Clear(environment);
    for (char **entry = environ; *entry; entry++) {
        const char *end = strchr(*entry, '=');
        if (!end)
            continue;
        PyObject *name = need(PyBytes_FromStringAndSize(*entry, end - *entry));
        PyObject *value = need(PyBytes_FromString(end + 1));
        need(PyDict_SetDefault(environment, name, value)); /* the first one counts, as for getenv */
    }
}

static void set_arguments(int argc, char **argv) {
    PyObject *list = need(PyList_New(argc));
    for (int i = 0; i < argc; i++)
        PyList_SET_ITEM(list, i, need(PyUnicode_DecodeUTF8(argv[i], (Py_ssize_t)strlen(argv[i]), "surrogateescape")));
    PySys_SetObject("argv", list);
    PyModule_AddObject(launcher, "library", need(PyUnicode_DecodeFSDefault(library)));
}

int main(int argc, char **argv) {
    if (!saved) {
        if (argc != 3)
            fail("usage: launcher MODULES PROGRAM");
        record();
        start_python();
        import_all(argv[1]);
        forget();
        PyThreadState_Get()->native_thread_id = 0; /* not the same each time */
        save(argv[2]);
        return 0;
    }
    guard_stdio();
    find_library();
    const char *python = getenv("RUNE_PYTHON");
    if (python && *python && strcmp(python, "0") != 0 && !strstr(argv[0], "shim"))
        run_with_python(argc, argv);
    guard_fds();
    resume();
    set_environment();
    set_arguments(argc, argv);
    PyObject_CallNoArgs(enter);
    PyErr_Print(); /* it ends the process itself */
    return 1;
}
