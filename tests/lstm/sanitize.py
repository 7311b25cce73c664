"""``make sanitize``: the native kernels under the address and undefined-behaviour sanitizers; fails on any report.

Compiled twice. Once as they are: everything but the products is then watched, for those run code that torch makes at
run time. And once with the products written out as loops, so that what they read and write is watched too. Each
library is driven through every plan and odd sizes and held to the reference, in a process of its own with the
sanitizers' runtimes loaded first. Leaks are not looked for: Python does not free everything at exit.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils import cpp_extension

from isotrain.lstm.kernels import build

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]
PRODUCTS_AS_LOOPS = """
#include <ATen/native/CPUBlas.h>
#include <ATen/ATen.h>

namespace at::native::cpublas {
template <typename S>
void brgemm_as_loops(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add, const S* a,
                     const S* b, float* c, bool pairs) {
  for (int64_t r = 0; r < m; r++)
    for (int64_t j = 0; j < n; j++) {
      float sum = add ? c[r * ldc + j] : 0.f;
      for (int64_t i = 0; i < k; i++)
        sum += float(a[r * lda + i]) * float(pairs ? b[(i / 2 * ldb + j) * 2 + i % 2] : b[i * ldb + j]);
      c[r * ldc + j] = sum;
    }
}
}  // namespace at::native::cpublas
#define brgemm brgemm_as_loops
#include "SOURCE"
"""


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def compiled(source: Path, folder: Path) -> Path:
    """The library of a source, with the sanitizers in."""
    library = folder / f"{source.stem}.so"
    flags = [flag for flag in build.flags() if flag != "-O3"]
    include = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    where = [f"-L{path}" for path in cpp_extension.library_paths()]
    links = ["-lc10", "-ltorch_cpu", "-ltorch", "-fopenmp"]
    command = [compiler(), *flags, *SANITIZERS, *include, "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run([*command, *where, *links], check=True)
    return library


def runtimes() -> str:
    """What has to be loaded before Python itself: torch throws exceptions that the sanitizer wants to see."""
    names = ("libasan.so", "libubsan.so", "libstdc++.so")
    found = (subprocess.check_output([compiler(), f"-print-file-name={name}"], text=True).strip() for name in names)
    return ":".join(str(Path(name).resolve()) for name in found)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        loops = Path(scratch) / "products_as_loops.cpp"
        loops.write_text(PRODUCTS_AS_LOOPS.replace("SOURCE", str(build.SOURCE)))
        for source in (loops, build.SOURCE):
            library = compiled(source, Path(scratch))
            environment = os.environ | {
                "LD_PRELOAD": runtimes(),
                "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:strict_init_order=1",
                "UBSAN_OPTIONS": "print_stacktrace=1",
            }
            subprocess.run([sys.executable, __file__, str(library)], env=environment, check=True)


def drive(library: str) -> None:
    """Every plan, odd sizes, on one thread and on two."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    torch.ops.load_library(library)
    build.load = lambda: None  # type: ignore[assignment]
    from tests.lstm import test_native as native

    small = native.Case(steps=3, batch=3, inputs=5, hidden=17)
    calls = 0
    for threads in (1, 2):
        for bf16 in (False, True):
            if bf16 and not build.has_brgemm(True):
                print("no bf16 products on this processor: not driven")
                continue
            cases = [replace(native.ODD, plan=native.sized(plan, 101)) for plan in native.PLANS.values()]
            cases += [replace(small, hidden=hidden) for hidden in (1, 15, 16, 33, 64, 65)]
            cases += [replace(small, inputs=inputs) for inputs in (1, 7, 64, 65, 130)]
            cases += [
                replace(small, steps=1),
                replace(small, batch=1),
                replace(small, steps=1, batch=1, inputs=1, hidden=1),
            ]
            cases += [replace(small, batch=0), replace(small, constants=(1, 9)), replace(small, biases=False)]
            cases += [replace(small, plan=native.Plan(torch.arange(17) > 16, mode)) for mode in ("exact", "cut")]
            cases += [replace(small, how_x_lies=how, batch_first=True) for how in native.LAYOUTS]
            cases += [replace(small, used=frozenset({name})) for name in native.OUTPUTS]
            cases += [replace(small, wanted=frozenset({name})) for name in native.NAMES]
            for case in cases:
                case = replace(case, bf16=bf16)
                with native.threads(threads):
                    answer = native.ours(case)
                if case.batch:
                    native.assert_near(answer, native.truth(case), *((0.03, 5e-3) if bf16 else (1e-5, 1e-6)))
                calls += 1
    print(f"{Path(library).stem}: {calls} layers forward and backward, nothing reported")


if __name__ == "__main__":
    drive(*sys.argv[1:]) if sys.argv[1:] else main()
