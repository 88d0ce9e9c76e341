/* The version, in one place: the Makefile, the rockspec and `mlserve._VERSION` agree with it (make lint checks). */
#ifndef MLSERVE_VERSION_H
#define MLSERVE_VERSION_H
#define MLSERVE_VERSION "0.1.0"
#endif
