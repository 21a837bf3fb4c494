/* The machine that figures depend on. */
#ifndef EOSFM_PROGRAM_MACHINE_H
#define EOSFM_PROGRAM_MACHINE_H

/* Prints processor, cores, system and load as `machine` of the results of `eosfm-edge bench`. */
void print_machine(const char *version);

/* Returns the megabytes of this process: "VmRSS" now, or "VmHWM" at most; 0 if the system does not say. */
double memory_mb(const char *key);

#endif
