/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pal.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct reader {
    const unsigned char *at;
    const unsigned char *end;
};

struct field {
    uint32_t number;
    int type;
    uint64_t value; /* of a varint; else the size of bytes */
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
    if (read_varint(in, &tag) < 0 || tag > UINT32_MAX)
        return -EPROTO;
    out->number = (uint32_t)(tag >> 3);
    out->type = (int)(tag & 7);
    out->bytes = NULL;
    if (out->type == VARINT)
        return read_varint(in, &out->value) < 0 ? -EPROTO : 1;
    if (out->type == FIXED64)
        out->value = 8;
    else if (out->type == FIXED32)
        out->value = 4;
    else if (out->type != BYTES || read_varint(in, &out->value) < 0)
        return -EPROTO;
    if (out->value > (uint64_t)(in->end - in->at))
        return -EPROTO;
    out->bytes = in->at;
    in->at += out->value;
    return 1;
}

int words_add(struct words *words, const char *text, size_t size) {
    if (words->count + 2 > words->room) {
        size_t room = words->room ? 2 * words->room : 16;
        char **list = realloc(words->list, room * sizeof *list);
        if (!list)
            return -ENOMEM;
        words->list = list;
        words->room = room;
    }
    char *word = strndup(text, size);
    if (!word)
        return -ENOMEM;
    words->list[words->count++] = word;
    words->list[words->count] = NULL;
    return 0;
}

/* The original's form: words joined by single blanks. */
static int add_joined(struct words *words, const struct field *joined) {
    const char *text = (const char *)joined->bytes;
    size_t start = 0;
    for (size_t i = 0; text && i <= joined->value; i++)
        if (i == joined->value || text[i] == ' ') {
            int result = i > start ? words_add(words, text + start, i - start) : 0;
            if (result < 0)
                return result;
            start = i + 1;
        }
    return 0;
}

static int parse_exec(struct request *request, struct reader in, const char **problem) {
    struct field joined[2] = {{0}, {0}};
    struct field field;
    int result;
    while ((result = read_field(&in, &field)) > 0) {
        if (field.number < 1 || field.number > 4)
            continue;
        if (field.type != BYTES || memchr(field.bytes, 0, field.value)) {
            *problem = "an argument or variable in the request is not a string";
            return -EPROTO;
        }
        if (field.number <= 2)
            joined[field.number - 1] = field;
        else if ((result = words_add(field.number == 3 ? &request->argv : &request->env, (const char *)field.bytes,
                                     field.value)) < 0)
            return result;
    }
    if (result == 0 && !request->argv.count)
        result = add_joined(&request->argv, &joined[0]);
    if (result == 0 && !request->env.count)
        result = add_joined(&request->env, &joined[1]);
    if (result == 0 && !request->env.list && !(request->env.list = calloc(1, sizeof *request->env.list)))
        result = -ENOMEM;
    if (result == 0 && !request->argv.count) {
        *problem = "the request names no program";
        result = -EPROTO;
    }
    return result;
}

static int parse_kill(struct request *request, struct reader in, const char **problem) {
    struct field field;
    int result;
    while ((result = read_field(&in, &field)) > 0)
        if (field.number == 1 && field.type == VARINT)
            request->sig = field.value <= 64 ? (int)field.value : 0;
    if (result == 0 && !request->sig) {
        *problem = "the request names no signal";
        result = -EPROTO;
    }
    return result;
}

static int parse_attest(struct request *request, struct reader in, const char **problem) {
    struct field field, target_info = {0}, report_data = {0};
    int result;
    while ((result = read_field(&in, &field)) > 0)
        if (field.number == 5 && field.type == BYTES)
            target_info = field;
        else if (field.number == 6 && field.type == BYTES)
            report_data = field;
    if (result < 0)
        return result;
    if (target_info.value != PAL_TARGET_INFO_SIZE) {
        *problem = "the request has no target info of 512 bytes";
        return -EPROTO;
    }
    if (report_data.bytes && report_data.value != PAL_REPORT_DATA_SIZE) {
        *problem = "the request has report data of another size than 64 bytes";
        return -EPROTO;
    }
    request->target_info = aligned_alloc(PAL_TARGET_INFO_SIZE, 2 * PAL_TARGET_INFO_SIZE);
    if (!request->target_info)
        return -ENOMEM;
    memcpy(request->target_info, target_info.bytes, PAL_TARGET_INFO_SIZE);
    request->target_info_size = PAL_TARGET_INFO_SIZE;
    if (report_data.bytes) {
        memcpy(request->target_info + PAL_TARGET_INFO_SIZE, report_data.bytes, PAL_REPORT_DATA_SIZE);
        request->target_info_size += PAL_REPORT_DATA_SIZE;
    }
    return 0;
}

int request_parse(struct request *request, const unsigned char *message, size_t size, const char **problem) {
    memset(request, 0, sizeof *request);
    *problem = "the request is malformed";
    struct reader in = {message, message + size};
    struct field field, body = {0};
    int result;
    while ((result = read_field(&in, &field)) > 0) {
        if (field.type != BYTES || field.number < REQUEST_EXEC || field.number > REQUEST_ATTEST)
            continue;
        if (body.bytes)
            return -EPROTO; /* two requests in one */
        body = field;
    }
    if (result < 0)
        return result;
    if (!body.bytes) {
        *problem = "the request is neither execute nor kill nor attest";
        return -EPROTO;
    }
    struct reader inner = {body.bytes, body.bytes + body.value};
    request->kind = (enum request_kind)body.number;
    result = request->kind == REQUEST_EXEC   ? parse_exec(request, inner, problem)
             : request->kind == REQUEST_KILL ? parse_kill(request, inner, problem)
                                             : parse_attest(request, inner, problem);
    if (result == -ENOMEM)
        *problem = "out of memory";
    return result;
}

static void free_words(struct words *words) {
    for (size_t i = 0; i < words->count; i++)
        free(words->list[i]);
    free(words->list);
}

void request_free(struct request *request) {
    free_words(&request->argv);
    free_words(&request->env);
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
