"""With the switches of the topic `avx2` no library uses AVX-512."""

import pytest

from benchmarks import avx2
from tests.benchmarks.test_command import run

pytestmark = pytest.mark.skipif(avx2.what_is_missing() is not None, reason="a processor without AVX-512")


def said_by(program):
    done = run("-c", program, **avx2.variables())
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_cnnlite_has_vectors_of_32_bytes_and_fused_multiply_add():
    found = said_by("from cnnlite.engine import target; print(target.VECTOR_BYTES, target.FUSED_MULTIPLY_ADD)")
    assert found == ["32", "True"]


@pytest.mark.parity
def test_pytorch_has_avx2_alone_compiled_or_not():
    pytest.importorskip("torch")
    assert said_by("import torch; print(torch.backends.cpu.get_cpu_capability())") == ["AVX2"]
    assert said_by("from torch._inductor import cpu_vec_isa; print(cpu_vec_isa.pick_vec_isa())") == ["avx2"]


def test_flags_that_were_given_to_xla_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=somewhere")
    assert avx2.variables()["XLA_FLAGS"] == f"--xla_dump_to=somewhere {avx2.XLA_FLAGS}"
    monkeypatch.delenv("XLA_FLAGS")
    assert avx2.variables()["XLA_FLAGS"] == avx2.XLA_FLAGS
