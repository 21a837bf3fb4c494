/* Results as JSON. */
#ifndef EOSFM_PROGRAM_TEXT_H
#define EOSFM_PROGRAM_TEXT_H

/* Prints a text as a JSON string, with its quotes. */
void print_json_string(const char *text);

/* Flushes standard output. Returns an exit code: kDone too where the reader has seen enough. */
int finish_printing(void);

#endif
