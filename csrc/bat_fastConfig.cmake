# find_package(bat_fast): bat_fast::kernels (headers), and bat_fast::cuda where the install has CUDA kernels and the
# caller has a CUDA toolkit.
include(${CMAKE_CURRENT_LIST_DIR}/bat_fast-kernels.cmake)
if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/bat_fast-cuda.cmake)
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    include(${CMAKE_CURRENT_LIST_DIR}/bat_fast-cuda.cmake)
    # Nothing is left for nvcc to link, so a plain C++ project can take the library.
    get_target_property(configurations bat_fast::cuda IMPORTED_CONFIGURATIONS)
    foreach(configuration ${configurations})
      set_target_properties(bat_fast::cuda PROPERTIES IMPORTED_LINK_INTERFACE_LANGUAGES_${configuration} CXX)
    endforeach()
    target_link_libraries(bat_fast::cuda INTERFACE CUDA::cudart_static)
  endif()
endif()
