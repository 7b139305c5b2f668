/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pal.h"

enum { VARINT = 0, BYTES = 2 };

struct reader {
    const unsigned char *at;
    const unsigned char *end;
};

struct field {
    uint32_t number;
    int type;
    uint64_t value; /* of a varint; the size of bytes */
    const unsigned char *bytes;
};

static int read_varint(struct reader *in, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; in->at < in->end && shift < 64; shift += 7) {
        unsigned char byte = *in->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return 0;
    }
    return -EPROTO;
}

/* Returns 1 for a field, 0 at the end, -EPROTO. */
static int read_field(struct reader *in, struct field *out) {
    if (in->at == in->end)
        return 0;
    uint64_t tag;
    if (read_varint(in, &tag) < 0 || read_varint(in, &out->value) < 0)
        return -EPROTO;
    out->number = (uint32_t)(tag >> 3);
    out->type = (int)(tag & 7);
    out->bytes = in->at;
    if (out->type == BYTES) {
        if (out->value > (uint64_t)(in->end - in->at))
            return -EPROTO;
        in->at += out->value;
    }
    return out->type == VARINT || out->type == BYTES ? 1 : -EPROTO;
}

/* A growing NULL-terminated array of strings. */
static int add_word(char ***words, const unsigned char *text, size_t size) {
    size_t count = 0;
    while (*words && (*words)[count])
        count++;
    char **longer = realloc(*words, (count + 2) * sizeof *longer);
    if (!longer)
        return -ENOMEM;
    *words = longer;
    longer[count + 1] = NULL;
    longer[count] = strndup((const char *)text, size);
    return longer[count] ? 0 : -ENOMEM;
}

/* The original's form: words joined by single blanks. */
static int add_joined(char ***words, const unsigned char *text, size_t size) {
    size_t start = 0;
    for (size_t i = 0; i <= size; i++)
        if (i == size || text[i] == ' ') {
            int result = i > start ? add_word(words, text + start, i - start) : 0;
            if (result < 0)
                return result;
            start = i + 1;
        }
    return 0;
}

static int parse_exec(struct request *request, struct reader in) {
    struct field joined[2] = {{0}, {0}};
    struct field field;
    int more;
    while ((more = read_field(&in, &field)) > 0) {
        int result = 0;
        if (field.type != BYTES || memchr(field.bytes, 0, field.value))
            return -EPROTO;
        if (field.number == 1 || field.number == 2)
            joined[field.number - 1] = field;
        else if (field.number == 3)
            result = add_word(&request->argv, field.bytes, field.value);
        else if (field.number == 4)
            result = add_word(&request->env, field.bytes, field.value);
        if (result < 0)
            return result;
    }
    if (more == 0 && !request->argv && joined[0].bytes)
        more = add_joined(&request->argv, joined[0].bytes, joined[0].value);
    if (more == 0 && !request->env && joined[1].bytes)
        more = add_joined(&request->env, joined[1].bytes, joined[1].value);
    if (more == 0 && !request->env)
        request->env = calloc(1, sizeof *request->env);
    if (more == 0 && !request->env)
        return -ENOMEM;
    return more < 0 ? more : request->argv ? 0 : -EPROTO;
}

static int parse_kill(struct request *request, struct reader in) {
    struct field field;
    int more;
    while ((more = read_field(&in, &field)) > 0)
        if (field.number == 1 && field.type == VARINT)
            request->sig = field.value <= 64 ? (int)field.value : 0;
    return more < 0 ? more : request->sig ? 0 : -EPROTO;
}

static int parse_attest(struct request *request, struct reader in) {
    struct field field;
    int more;
    while ((more = read_field(&in, &field)) > 0)
        if (field.number == 5 && field.type == BYTES && field.value == PAL_TARGET_INFO_SIZE && !request->target_info) {
            /* EREPORT wants the structure aligned to its size */
            request->target_info = aligned_alloc(PAL_TARGET_INFO_SIZE, PAL_TARGET_INFO_SIZE);
            if (!request->target_info)
                return -ENOMEM;
            memcpy(request->target_info, field.bytes, PAL_TARGET_INFO_SIZE);
        }
    return more < 0 ? more : request->target_info ? 0 : -EPROTO;
}

int request_parse(struct request *request, const unsigned char *message, size_t size) {
    memset(request, 0, sizeof *request);
    struct reader in = {message, message + size};
    struct field field;
    int more = read_field(&in, &field);
    if (more <= 0 || field.type != BYTES || in.at != in.end)
        return -EPROTO;
    struct reader inner = {field.bytes, field.bytes + field.value};
    request->kind = (enum request_kind)field.number;
    switch (field.number) {
    case REQUEST_EXEC:
        return parse_exec(request, inner);
    case REQUEST_KILL:
        return parse_kill(request, inner);
    case REQUEST_ATTEST:
        return parse_attest(request, inner);
    default:
        return -EPROTO;
    }
}

static void free_words(char **words) {
    for (char **word = words; word && *word; word++)
        free(*word);
    free(words);
}

void request_free(struct request *request) {
    free_words(request->argv);
    free_words(request->env);
    free(request->target_info);
    memset(request, 0, sizeof *request);
}

static unsigned char *put_varint(unsigned char *out, uint64_t value) {
    for (; value > 0x7f; value >>= 7)
        *out++ = (unsigned char)(value | 0x80);
    *out++ = (unsigned char)value;
    return out;
}

static unsigned char *put_bytes(unsigned char *out, int number, const void *bytes, size_t size) {
    out = put_varint(out, (uint64_t)number << 3 | BYTES);
    out = put_varint(out, size);
    memcpy(out, bytes, size);
    return out + size;
}

size_t response_write(unsigned char *out, enum request_kind kind, int code, const char *error,
                      const unsigned char *report) {
    unsigned char inner[2048];
    unsigned char *end = put_varint(inner, 1 << 3 | VARINT);
    end = put_varint(end, (uint64_t)(unsigned)code);
    if (error && *error)
        end = put_bytes(end, 2, error, strnlen(error, 1024));
    if (report)
        end = put_bytes(end, 3, report, PAL_REPORT_SIZE);
    int number = kind == REQUEST_ATTEST ? 2 : 1;
    size_t size = (size_t)(put_bytes(out + 4, number, inner, (size_t)(end - inner)) - (out + 4));
    for (int i = 0; i < 4; i++)
        out[i] = (unsigned char)(size >> 8 * i);
    return size + 4;
}
