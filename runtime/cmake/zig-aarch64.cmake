# Zig's C and C++ compiler, which links for the glibc that it is told: a library that was built so runs
# on every system with that glibc or a later one. -DEOSFM_ZIG=path -DEOSFM_GLIBC=2.31
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EOSFM_ZIG EOSFM_GLIBC)
set(CMAKE_C_COMPILER ${EOSFM_ZIG} cc -target aarch64-linux-gnu.${EOSFM_GLIBC})
set(CMAKE_CXX_COMPILER ${EOSFM_ZIG} c++ -target aarch64-linux-gnu.${EOSFM_GLIBC})
