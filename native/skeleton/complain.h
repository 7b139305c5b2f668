/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SKELETON_COMPLAIN_H
#define SKELETON_COMPLAIN_H

/* Says on stderr what went wrong, one line, written at once. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

#endif
