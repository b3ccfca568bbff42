"""What a build compiles: setup_objects.py with a real compiler and a small program."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from setup_objects import (
    Compilation,
    CompilationError,
    compile_all,
    compiler_version,
    job_count,
    output_of,
    with_ccache,
)

COMPILER = shutil.which("c++") or "g++"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources, one of which includes a header by way of another."""
    monkeypatch.chdir(tmp_path)
    Path("inner.h").write_text("#define ANSWER 42\n")
    Path("outer.h").write_text('#include "inner.h"\n')
    Path("first.cpp").write_text('#include "outer.h"\nint first() { return ANSWER; }\n')
    Path("second.cpp").write_text("int second() { return 2; }\n")
    return tmp_path


def compiled(capfd: pytest.CaptureFixture[str], *flags: str, versions: str = "") -> list[str]:
    """Bring all object files up to date -> the sources that were compiled for it."""
    compilations = [
        Compilation(Path(name), (COMPILER, "-I.", *flags), versions) for name in ("first.cpp", "second.cpp")
    ]
    capfd.readouterr()
    compile_all(compilations, os.environ)
    assert all(compilation.target().exists() for compilation in compilations)
    lines = capfd.readouterr().out.splitlines()
    return sorted(line.split()[-1] for line in lines if "] compile " in line)


def renew(path: str) -> None:
    """Write a file again, after all object files."""
    Path(path).write_text(Path(path).read_text() + "\n")


def test_only_what_has_changed_is_compiled(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compiled(capfd) == ["first.cpp", "second.cpp"]
    assert compiled(capfd) == []
    renew("second.cpp")
    assert compiled(capfd) == ["second.cpp"]
    renew("inner.h")
    assert compiled(capfd) == ["first.cpp"]
    assert compiled(capfd) == []


@pytest.mark.parametrize(
    ("flags", "versions"), [(("-DA='a b$c'",), ""), ((), "another compiler")], ids=["flags", "versions"]
)
def test_objects_of_configurations_live_side_by_side(
    project: Path, capfd: pytest.CaptureFixture[str], flags: tuple[str, ...], versions: str
) -> None:
    assert compiled(capfd) == ["first.cpp", "second.cpp"]
    assert compiled(capfd, *flags, versions=versions) == ["first.cpp", "second.cpp"]
    assert compiled(capfd) == compiled(capfd, *flags, versions=versions) == []


def test_arguments_reach_the_compiler_as_they_are(project: Path) -> None:
    Path("second.cpp").write_text('static_assert(sizeof(TEXT) == 7, "");\n')
    compile_all([Compilation(Path("second.cpp"), (COMPILER, '-DTEXT="a $b c"'))], os.environ)


def test_a_refused_file_is_an_error_and_leaves_no_object(project: Path) -> None:
    Path("first.cpp").write_text("int first() { return }\n")
    compilation = Compilation(Path("first.cpp"), (COMPILER,))
    with pytest.raises(CompilationError, match="compiling lwfm failed"):
        compile_all([compilation], os.environ)
    assert not compilation.target().exists()


def test_ccache_is_used_where_it_is_installed(tmp_path: Path) -> None:
    assert with_ccache(["g++", "-O3"], {"PATH": str(tmp_path)}) == ("g++", "-O3")
    ccache = tmp_path / "ccache"
    ccache.write_text("#!/bin/sh\n")
    ccache.chmod(0o755)
    environment = {"PATH": str(tmp_path)}
    assert with_ccache(["g++", "-O3"], environment) == (str(ccache), "g++", "-O3")
    assert with_ccache(["/usr/bin/ccache", "g++"], environment) == ("/usr/bin/ccache", "g++")


def test_version_is_that_of_the_compiler_behind_a_launcher(tmp_path: Path) -> None:
    launcher = tmp_path / "launcher"
    launcher.write_text('#!/bin/sh\ntest "$1" = --version && echo launcher || exec "$@"\n')
    launcher.chmod(0o755)
    version = output_of([COMPILER, "--version"])
    assert version
    assert compiler_version([str(launcher), COMPILER, "-fPIC"]) == version


@pytest.mark.parametrize(
    ("wish", "jobs"), [("3", 3), ("1", 1), ("0", None), ("", None), ("many", None)], ids=repr
)
def test_max_jobs_is_honored(wish: str, jobs: int | None) -> None:
    assert job_count({"MAX_JOBS": wish}) == (jobs or job_count({})) >= 1
