# Debian: gcc-arm-none-eabi and qemu-system-arm. No C library is needed.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
# The compiler takes no loop for a memset, which would be in a C library.
set(CMAKE_C_FLAGS_INIT "-mcpu=cortex-m3 -mthumb -Os -ffreestanding -fno-tree-loop-distribute-patterns")
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
# What ctest starts the program with.
set(CMAKE_CROSSCOMPILING_EMULATOR
  qemu-system-arm -machine mps2-an385 -display none -semihosting-config enable=on,target=native -kernel)
