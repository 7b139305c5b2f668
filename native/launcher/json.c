/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module `_json` of the standard library, as far as rune and `json` need it: make_scanner and
 * encode_basestring_ascii, with the interface of Python's own. That one is a shared object, which a static program
 * cannot load.
 *
 * A text that is not JSON (RFC 8259) raises StopIteration with the place where it stopped being it, and no more is
 * said: inclavare.oci.jsontext lets `json` explain. Numbers are given to parse_int and parse_float as they are written.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <string.h>

#include "json.h"

/* The hooks of a JSONDecoder or of whoever looks like one; NULL for None. */
typedef struct {
    PyObject_HEAD;
    PyObject *object_hook;
    PyObject *object_pairs_hook;
    PyObject *parse_int;
    PyObject *parse_float;
    PyObject *parse_constant;
    bool strict;
} Scanner;

/* A text being read. `at` never passes `size`; `failed` is where it is not JSON. */
struct text {
    PyObject *string;
    const void *data;
    int kind;
    Py_ssize_t size;
    Py_ssize_t at;
    Py_ssize_t failed;
    PyObject *names; /* of members, each once */
};

static PyObject *scan_value(Scanner *self, struct text *text);

/* The character at `at`, 0 behind the end (a NUL in the text is no part of JSON outside of strings either). */
static Py_UCS4 peek(const struct text *text) {
    return text->at < text->size ? PyUnicode_READ(text->kind, text->data, text->at) : 0;
}

static PyObject *fail(struct text *text, Py_ssize_t at) {
    text->failed = at;
    return NULL;
}

static void skip_blanks(struct text *text) {
    for (;;) {
        Py_UCS4 c = peek(text);
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
            return;
        text->at++;
    }
}

static bool take(struct text *text, Py_UCS4 wanted) {
    bool found = peek(text) == wanted;
    text->at += found;
    return found;
}

static int hex_digit(Py_UCS4 c) {
    if (c >= '0' && c <= '9')
        return (int)(c - '0');
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        return (int)(c | 0x20) - 'a' + 10;
    return -1;
}

/* Four digits at `at`; -1 when there are none, and `at` stays. */
static int take_hex(struct text *text) {
    int value = 0;
    for (Py_ssize_t i = text->at; i < text->at + 4; i++) {
        int nibble = i < text->size ? hex_digit(PyUnicode_READ(text->kind, text->data, i)) : -1;
        if (nibble < 0)
            return -1;
        value = value << 4 | nibble;
    }
    text->at += 4;
    return value;
}

/* What follows a backslash. Returns the character, or -1. */
static int take_escape(struct text *text) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    Py_UCS4 c = peek(text);
    const char *found = c && c < 128 ? strchr(letters, (int)c) : NULL;
    if (found) {
        text->at++;
        return meanings[found - letters];
    }
    if (c != 'u')
        return -1;
    text->at++;
    int high = take_hex(text);
    if (!Py_UNICODE_IS_HIGH_SURROGATE((Py_UCS4)high) || high < 0)
        return high;
    Py_ssize_t behind = text->at;
    if (take(text, '\\') && take(text, 'u')) {
        int low = take_hex(text);
        if (low >= 0 && Py_UNICODE_IS_LOW_SURROGATE((Py_UCS4)low))
            return (int)Py_UNICODE_JOIN_SURROGATES((Py_UCS4)high, (Py_UCS4)low);
    }
    text->at = behind; /* a lone surrogate */
    return high;
}

/* `at` is behind the opening quote. */
static PyObject *scan_string(Scanner *self, struct text *text) {
    Py_ssize_t begin = text->at;
    _PyUnicodeWriter writer;
    bool escapes = false;
    for (;;) {
        Py_ssize_t run = text->at;
        Py_UCS4 c = 0;
        while (text->at < text->size) {
            c = PyUnicode_READ(text->kind, text->data, text->at);
            if (c == '"' || c == '\\' || (c < 0x20 && self->strict))
                break;
            text->at++;
        }
        bool ended = text->at < text->size && c == '"';
        if (ended && !escapes) {
            text->at++;
            return PyUnicode_Substring(text->string, begin, text->at - 1);
        }
        if (!escapes) {
            _PyUnicodeWriter_Init(&writer);
            writer.overallocate = 1;
            escapes = true;
        }
        if (_PyUnicodeWriter_WriteSubstring(&writer, text->string, run, text->at) < 0)
            break;
        if (ended) {
            text->at++;
            return _PyUnicodeWriter_Finish(&writer);
        }
        int character = take(text, '\\') ? take_escape(text) : -1;
        if (character < 0) {
            fail(text, text->at);
            break;
        }
        if (_PyUnicodeWriter_WriteChar(&writer, (Py_UCS4)character) < 0)
            break;
    }
    _PyUnicodeWriter_Dealloc(&writer);
    return NULL;
}

/* The name of a member: one object for all members of that name. */
static PyObject *scan_name(Scanner *self, struct text *text) {
    PyObject *name = scan_string(self, text);
    PyObject *known = name ? PyDict_SetDefault(text->names, name, name) : NULL;
    Py_XINCREF(known);
    Py_XDECREF(name);
    return known;
}

/* "name": value. Adds it to a list of pairs or a dict. */
static int scan_member(Scanner *self, struct text *text, PyObject *members) {
    if (!take(text, '"')) {
        fail(text, text->at);
        return -1;
    }
    PyObject *name = scan_name(self, text);
    if (!name)
        return -1;
    skip_blanks(text);
    PyObject *value = NULL;
    if (take(text, ':')) {
        skip_blanks(text);
        value = scan_value(self, text);
    } else {
        fail(text, text->at);
    }
    int result = -1;
    if (value && PyDict_Check(members)) {
        result = PyDict_SetItem(members, name, value);
    } else if (value) {
        PyObject *pair = PyTuple_Pack(2, name, value);
        result = pair ? PyList_Append(members, pair) : -1;
        Py_XDECREF(pair);
    }
    Py_XDECREF(value);
    Py_DECREF(name);
    return result;
}

/* A dict or what a hook makes of it; `at` is behind the brace. */
static PyObject *scan_object(Scanner *self, struct text *text) {
    PyObject *members = self->object_pairs_hook ? PyList_New(0) : PyDict_New();
    if (!members)
        return NULL;
    skip_blanks(text);
    if (!take(text, '}')) {
        do {
            skip_blanks(text);
            if (scan_member(self, text, members) < 0)
                goto failed;
            skip_blanks(text);
        } while (take(text, ','));
        if (!take(text, '}')) {
            fail(text, text->at);
            goto failed;
        }
    }
    PyObject *hook = self->object_pairs_hook ? self->object_pairs_hook : self->object_hook;
    if (!hook)
        return members;
    PyObject *made = PyObject_CallOneArg(hook, members);
    Py_DECREF(members);
    return made;
failed:
    Py_DECREF(members);
    return NULL;
}

/* `at` is behind the bracket. */
static PyObject *scan_array(Scanner *self, struct text *text) {
    PyObject *items = PyList_New(0);
    if (!items)
        return NULL;
    skip_blanks(text);
    if (take(text, ']'))
        return items;
    do {
        skip_blanks(text);
        PyObject *item = scan_value(self, text);
        if (!item || PyList_Append(items, item) < 0) {
            Py_XDECREF(item);
            Py_DECREF(items);
            return NULL;
        }
        Py_DECREF(item);
        skip_blanks(text);
    } while (take(text, ','));
    if (take(text, ']'))
        return items;
    Py_DECREF(items);
    return fail(text, text->at);
}

static bool take_digits(struct text *text) {
    Py_ssize_t begin = text->at;
    while (peek(text) >= '0' && peek(text) <= '9')
        text->at++;
    return text->at > begin;
}

static PyObject *scan_number(Scanner *self, struct text *text) {
    Py_ssize_t begin = text->at;
    take(text, '-');
    if (!take(text, '0') && !take_digits(text))
        return fail(text, begin);
    /* A point or an E that no digit follows is not the number's any more. */
    Py_ssize_t integer_end = text->at, end = integer_end;
    if (take(text, '.') && take_digits(text))
        end = text->at;
    text->at = end;
    if (take(text, 'e') || take(text, 'E')) {
        if (!take(text, '+'))
            take(text, '-');
        if (take_digits(text))
            end = text->at;
    }
    text->at = end;
    PyObject *digits = PyUnicode_Substring(text->string, begin, end);
    if (!digits)
        return NULL;
    PyObject *number = PyObject_CallOneArg(end > integer_end ? self->parse_float : self->parse_int, digits);
    Py_DECREF(digits);
    return number;
}

static bool take_word(struct text *text, const char *word) {
    Py_ssize_t size = (Py_ssize_t)strlen(word);
    for (Py_ssize_t i = 0; i < size; i++)
        if (text->at + i >= text->size || PyUnicode_READ(text->kind, text->data, text->at + i) != (Py_UCS4)word[i])
            return false;
    text->at += size;
    return true;
}

static PyObject *scan_word(Scanner *self, struct text *text) {
    static const char *const constants[] = {"NaN", "Infinity", "-Infinity"};
    if (take_word(text, "null"))
        Py_RETURN_NONE;
    if (take_word(text, "true"))
        Py_RETURN_TRUE;
    if (take_word(text, "false"))
        Py_RETURN_FALSE;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (take_word(text, constants[i]))
            return PyObject_CallFunction(self->parse_constant, "s", constants[i]);
    return peek(text) == '-' || (peek(text) >= '0' && peek(text) <= '9') ? scan_number(self, text)
                                                                         : fail(text, text->at);
}

static PyObject *scan_value(Scanner *self, struct text *text) {
    if (take(text, '"'))
        return scan_string(self, text);
    bool is_object = take(text, '{');
    if (!is_object && !take(text, '['))
        return scan_word(self, text);
    if (Py_EnterRecursiveCall(" while decoding a JSON document"))
        return NULL;
    PyObject *value = is_object ? scan_object(self, text) : scan_array(self, text);
    Py_LeaveRecursiveCall();
    return value;
}

/* scanner(string, index) -> (value, index behind it) */
static PyObject *scanner_call(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"string", "idx", NULL};
    struct text text = {.failed = -1};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Un:scan_once", names, &text.string, &text.at))
        return NULL;
    if (PyUnicode_READY(text.string) < 0 || !(text.names = PyDict_New()))
        return NULL;
    text.data = PyUnicode_DATA(text.string);
    text.kind = PyUnicode_KIND(text.string);
    text.size = PyUnicode_GET_LENGTH(text.string);
    PyObject *value = NULL;
    if (text.at < 0)
        PyErr_SetString(PyExc_ValueError, "idx cannot be negative");
    else
        value = scan_value((Scanner *)object, &text);
    Py_DECREF(text.names);
    if (value)
        return Py_BuildValue("Nn", value, text.at);
    if (!PyErr_Occurred()) {
        PyObject *place = PyLong_FromSsize_t(text.failed);
        PyErr_SetObject(PyExc_StopIteration, place);
        Py_XDECREF(place);
    }
    return NULL;
}

static int take_hook(PyObject *context, const char *name, PyObject **hook) {
    *hook = PyObject_GetAttrString(context, name);
    if (*hook == Py_None)
        Py_CLEAR(*hook);
    return *hook || !PyErr_Occurred() ? 0 : -1;
}

static PyObject *scanner_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"context", NULL};
    PyObject *context;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:make_scanner", names, &context))
        return NULL;
    Scanner *self = (Scanner *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    PyObject *strict = PyObject_GetAttrString(context, "strict");
    int is_strict = strict ? PyObject_IsTrue(strict) : -1;
    Py_XDECREF(strict);
    self->strict = is_strict > 0;
    if (is_strict < 0 || take_hook(context, "object_hook", &self->object_hook) < 0 ||
        take_hook(context, "object_pairs_hook", &self->object_pairs_hook) < 0 ||
        !(self->parse_int = PyObject_GetAttrString(context, "parse_int")) ||
        !(self->parse_float = PyObject_GetAttrString(context, "parse_float")) ||
        !(self->parse_constant = PyObject_GetAttrString(context, "parse_constant"))) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void scanner_dealloc(PyObject *object) {
    Scanner *self = (Scanner *)object;
    Py_XDECREF(self->object_hook);
    Py_XDECREF(self->object_pairs_hook);
    Py_XDECREF(self->parse_int);
    Py_XDECREF(self->parse_float);
    Py_XDECREF(self->parse_constant);
    PyTypeObject *type = Py_TYPE(object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* "\uXXXX" of one UTF-16 unit. */
static char *put_unit(char *out, Py_UCS4 unit) {
    static const char digits[] = "0123456789abcdef";
    *out++ = '\\';
    *out++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4)
        *out++ = digits[unit >> shift & 15];
    return out;
}

static char *put_character(char *out, Py_UCS4 c) {
    static const char letters[] = "\"\\bfnrt", meanings[] = "\"\\\b\f\n\r\t";
    const char *found = c && c < 128 ? strchr(meanings, (int)c) : NULL;
    if (found) {
        *out++ = '\\';
        *out++ = letters[found - meanings];
    } else if (c >= 0x20 && c < 0x7F) {
        *out++ = (char)c;
    } else if (c > 0xFFFF) {
        out = put_unit(put_unit(out, Py_UNICODE_HIGH_SURROGATE(c)), Py_UNICODE_LOW_SURROGATE(c));
    } else {
        out = put_unit(out, c);
    }
    return out;
}

static PyObject *encode(PyObject *module, PyObject *string) {
    (void)module;
    if (!PyUnicode_Check(string))
        return PyErr_Format(PyExc_TypeError, "first argument must be a string, not %.80s", Py_TYPE(string)->tp_name);
    if (PyUnicode_READY(string) < 0)
        return NULL;
    Py_ssize_t size = PyUnicode_GET_LENGTH(string);
    if (size > (PY_SSIZE_T_MAX - 2) / 12)
        return PyErr_NoMemory();
    char *text = PyMem_Malloc((size_t)(12 * size + 2)), *out = text;
    if (!text)
        return PyErr_NoMemory();
    *out++ = '"';
    for (Py_ssize_t i = 0; i < size; i++)
        out = put_character(out, PyUnicode_READ_CHAR(string, i));
    *out++ = '"';
    PyObject *result = PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, text, out - text);
    PyMem_Free(text);
    return result;
}

static PyType_Slot scanner_slots[] = {
    {Py_tp_new, scanner_new}, {Py_tp_call, scanner_call}, {Py_tp_dealloc, scanner_dealloc}, {0}};
static PyType_Spec scanner_type = {"_json.Scanner", sizeof(Scanner), 0, Py_TPFLAGS_DEFAULT, scanner_slots};
static PyMethodDef functions[] = {{"encode_basestring_ascii", encode, METH_O, "Write a string as JSON, in ASCII."},
                                  {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_json", NULL, -1, functions, 0, 0, 0, 0};

PyObject *make_json_module(void) {
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = module ? PyType_FromSpec(&scanner_type) : NULL;
    if (!type || PyModule_AddObject(module, "make_scanner", type) < 0)
        return NULL;
    return module;
}
