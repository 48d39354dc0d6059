# The compilers' flags and memory settings that the launch scripts use, in one place. Read it with
# `.`; the functions change the environment. What you have set there goes last, so it wins.
# README.md, "Flags", says what each is for. None was measured on hardware by us.

# https://docs.jax.dev/en/latest/gpu_performance_tips.html, https://openxla.org/xla/flags_guidance:
# the scheduler overlaps the sums of gradients over devices with what is left to compute.
GPU_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true"

# https://docs.jax.dev/en/latest/gpu_memory_allocation.html: JAX takes 75 % of the memory by
# default. https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance: 0.8 or 0.9.
GPU_MEMORY=0.9

# https://openxla.org/xla/flags_guidance, "v5e/Async": all-reduces beside other work.
V5E_FLAGS="--xla_tpu_enable_async_collective_fusion=true"
V5E_FLAGS="$V5E_FLAGS --xla_tpu_enable_async_collective_fusion_fuse_all_reduce=true"

gpu_flags() {
    export XLA_FLAGS="$GPU_FLAGS ${XLA_FLAGS:-}"
    # JAX refuses both names of this setting at a time.
    [ -n "${XLA_PYTHON_CLIENT_MEM_FRACTION:-}" ] ||
        export XLA_CLIENT_MEM_FRACTION="${XLA_CLIENT_MEM_FRACTION:-$GPU_MEMORY}"
}

tpu_flags() { # of a type of slice, as v5litepod-64
    case $1 in
    v5litepod-*) export LIBTPU_INIT_ARGS="$V5E_FLAGS ${LIBTPU_INIT_ARGS:-}" ;;
    esac
}
