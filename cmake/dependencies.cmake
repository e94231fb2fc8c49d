# Highway and Eigen: an installed one is used, else a pinned release whose hash is checked.
include(FetchContent)

find_package(hwy CONFIG QUIET)
if(NOT hwy_FOUND)
  find_package(PkgConfig QUIET)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(HWY QUIET IMPORTED_TARGET libhwy)
  endif()
endif()
if(NOT TARGET hwy::hwy AND HWY_FOUND)
  add_library(hwy::hwy ALIAS PkgConfig::HWY)
endif()
if(NOT TARGET hwy::hwy)
  message(STATUS "edgequant: no installed Highway, fetching 1.4.0")
  set(HWY_ENABLE_CONTRIB OFF CACHE BOOL "" FORCE)
  set(HWY_ENABLE_EXAMPLES OFF CACHE BOOL "" FORCE)
  set(HWY_ENABLE_INSTALL OFF CACHE BOOL "" FORCE)
  set(HWY_ENABLE_TESTS OFF CACHE BOOL "" FORCE)
  set(HWY_FORCE_STATIC_LIBS ON CACHE BOOL "" FORCE)
  FetchContent_Declare(highway
    URL https://github.com/google/highway/archive/refs/tags/1.4.0.tar.gz
    URL_HASH SHA256=e72241ac9524bb653ae52ced768b508045d4438726a303f10181a38f764a453c
    DOWNLOAD_EXTRACT_TIMESTAMP ON)
  FetchContent_MakeAvailable(highway)
  add_library(hwy::hwy ALIAS hwy)
endif()

find_package(Eigen3 3.4 CONFIG QUIET)
if(NOT TARGET Eigen3::Eigen)
  message(STATUS "edgequant: no installed Eigen, fetching 3.4.0")
  FetchContent_Declare(eigen
    URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.bz2
    URL_HASH SHA256=b4c198460eba6f28d34894e3a5710998818515104d6e74e5cc331ce31e46e626
    DOWNLOAD_EXTRACT_TIMESTAMP ON
    SOURCE_SUBDIR no-such-folder)  # headers only: its own CMake project is not wanted
  FetchContent_MakeAvailable(eigen)
  add_library(edgequant_eigen INTERFACE)
  target_include_directories(edgequant_eigen SYSTEM INTERFACE ${eigen_SOURCE_DIR})
  add_library(Eigen3::Eigen ALIAS edgequant_eigen)
endif()
