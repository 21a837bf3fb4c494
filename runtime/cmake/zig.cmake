# Zig's C and C++ compiler, for another processor or an older libc: what was linked for a glibc runs on every
# system with that one or a later one. -DEOSFM_ZIG=path -DEOSFM_ZIG_TARGET=aarch64-linux-gnu.2.31
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EOSFM_ZIG EOSFM_ZIG_TARGET)
string(REGEX MATCH "^[^-]+" EOSFM_ZIG_PROCESSOR "${EOSFM_ZIG_TARGET}")
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${EOSFM_ZIG_PROCESSOR})
set(CMAKE_C_COMPILER ${EOSFM_ZIG} cc -target ${EOSFM_ZIG_TARGET})
set(CMAKE_CXX_COMPILER ${EOSFM_ZIG} c++ -target ${EOSFM_ZIG_TARGET})
