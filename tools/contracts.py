"""Generate, lint and compare the protobuf contracts.

    python tools/contracts.py generate    writes gen/ (Python always; Go, TypeScript, Java where the plugin is on PATH)
    python tools/contracts.py check       lint, breaking-change check against the last commit, gen/ is current

Third-party protos are never copied: google/api and google/rpc come from googleapis-common-protos, buf/validate from
the descriptor inside protovalidate.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google.api
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"
SITE_PACKAGES = Path(google.api.__path__[0]).parent.parent
BIN = Path(sys.executable).parent

# A plugin that is not on PATH is passed over, so a machine without Go or Node can still generate Python.
OTHER_LANGUAGES = {
    "go": [
        ("protoc-gen-go", "--go_out={out}", "--go_opt=module=kente.dev/gen/go"),
        ("protoc-gen-go-grpc", "--go-grpc_out={out}", "--go-grpc_opt=module=kente.dev/gen/go"),
    ],
    "typescript": [("protoc-gen-es", "--es_out={out}", "--es_opt=target=ts")],
    "java": [("protoc-gen-grpc-java", "--java_out={out}", "--grpc-java_out={out}")],
}

# Generated modules import buf.validate.validate_pb2; this one registers protovalidate's own descriptor.
VALIDATE_SHIM = """\
# Written by tools/contracts.py. The descriptor is protovalidate's own; nothing of it is copied here.
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf import descriptor_pool
from google.protobuf.internal import builder
from protovalidate._gen.buf.validate import validate_pb

_ = (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2)
DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(validate_pb._DESC.proto.to_binary())
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "buf.validate.validate_pb2", globals())
"""
VALIDATE_STUB = """\
from google.protobuf.descriptor import FileDescriptor

DESCRIPTOR: FileDescriptor
"""


def run(*arguments: str | Path, cwd: Path = ROOT) -> None:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([str(a) for a in arguments], cwd=cwd, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def own_protos(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))


def write_third_party_descriptors(target: Path) -> None:
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())  # noqa: SLF001 - the only way to it
    target.write_bytes(files.SerializeToString())


def protoc(proto: Path, *outputs: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch) / "third_party.binpb"
        write_third_party_descriptors(descriptors)
        run(
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--descriptor_set_in={descriptors}",
            f"-I{proto}",
            f"-I{SITE_PACKAGES}",
            *outputs,
            *own_protos(proto),
            cwd=proto,
        )


def write_image(proto: Path, target: Path) -> None:
    """Compiles all contracts with comments into a descriptor set that buf can read."""
    protoc(proto, "--include_imports", "--include_source_info", f"--descriptor_set_out={target}")


def image_of(proto: Path) -> bytes:
    """The same as bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        write_image(proto, image)
        return image.read_bytes()


def generate_python(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    outs = ("python", "grpc_python", "mypy", "mypy_grpc")
    quiet = ("--mypy_opt=quiet", "--mypy_grpc_opt=quiet")
    protoc(PROTO, *(f"--{name}_out={target}" for name in outs), *quiet)
    write_reasons(target)
    write_comments(target / "kente" / "comments.json")
    (target / "kente" / "py.typed").touch()
    shim = target / "buf" / "validate"
    shim.mkdir(parents=True, exist_ok=True)
    (shim / "validate_pb2.py").write_text(VALIDATE_SHIM)
    (shim / "validate_pb2.pyi").write_text(VALIDATE_STUB)


def write_comments(target: Path) -> None:
    """Writes the comments of the contracts by full name, for the gateway's documents: generated modules carry none."""
    files = descriptor_pb2.FileDescriptorSet.FromString(image_of(PROTO))
    comments: dict[str, str] = {}
    for file in files.file:
        if not file.package.startswith("kente."):
            continue
        for location in file.source_code_info.location:
            text = "\n".join(line.strip() for line in location.leading_comments.splitlines()).strip()
            name = commented_name(file, location.path)
            if text and name:
                comments[name] = text
    target.write_text(json.dumps(dict(sorted(comments.items())), ensure_ascii=False, indent=1) + "\n")


def commented_name(file: descriptor_pb2.FileDescriptorProto, path: Sequence[int]) -> str:
    """Full name of what a source location describes; empty for what has none, such as an option."""
    element: Any = file
    names = [file.package]
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = element.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not field.is_repeated or field.message_type is None:
            return ""
        element = getattr(element, field.name)[index]
        if isinstance(element, descriptor_pb2.EnumValueDescriptorProto):
            # Enum values are scoped beside their enum.
            names.pop()
        names.append(str(getattr(element, "name", "")))
    return ".".join(names) if len(names) > 1 and len(path) % 2 == 0 else ""


def write_reasons(target: Path) -> None:
    """Writes the error reasons as a Python enum, so that a typing mistake in one fails the type check."""
    files = descriptor_pb2.FileDescriptorSet.FromString(image_of(PROTO)).file
    enums = [enum for file in files for enum in file.enum_type if enum.name == "ErrorReason"]
    members = [(value.name.removeprefix("ERROR_REASON_"), value.number) for value in enums[0].value]
    lines = [f"    {name} = {number}" for name, number in members]
    (target / "kente" / "common" / "v1" / "reason.py").write_text(
        "# Written by tools/contracts.py from errors.proto.\nimport enum\n\n\n"
        "class Reason(enum.IntEnum):\n" + "\n".join(lines) + "\n"
    )


def generate() -> None:
    shutil.rmtree(GEN / "python", ignore_errors=True)
    generate_python(GEN / "python")
    for language, plugins in OTHER_LANGUAGES.items():
        missing = [name for name, *_ in plugins if shutil.which(name) is None]
        if missing:
            print(f"gen/{language}: passed over, {', '.join(missing)} is not on PATH")
            continue
        target = GEN / language
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        protoc(PROTO, *(flag.format(out=target) for _, *flags in plugins for flag in flags))


def lint_and_compare() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        write_image(PROTO, image)
        ours = [f"--path={path}" for path in own_protos(PROTO)]
        run("buf", "lint", image, "--config", ROOT / "buf.yaml", *ours)
        baseline = Path(scratch) / "baseline"
        commit = extract_baseline(baseline)
        if commit is None:
            print("buf breaking: no earlier contracts to compare with")
            return
        against = Path(scratch) / "against.binpb"
        write_image(baseline / "proto", against)
        print(f"buf breaking: compared with {commit[:12]}")
        run(
            "buf",
            "breaking",
            image,
            "--against",
            against,
            "--config",
            ROOT / "buf.yaml",
            *[f"--path={path}" for path in own_protos(baseline / "proto")],
        )


def extract_baseline(target: Path) -> str | None:
    """Unpacks proto/ of the last commit; of the commit before the last change to it when nothing is uncommitted."""
    target.mkdir()
    changed = bool(git("status", "--porcelain", "--", "proto").strip())
    commits = git("log", "--format=%H", "--max-count=2", "--", "proto").split()[0 if changed else 1 :]
    if not commits:
        return None
    commit = commits[0]
    archive = subprocess.run(["git", "archive", commit, "proto"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True)
    return commit


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def differences(left: Path, right: Path) -> Iterator[str]:
    pattern = ("*.py", "*.pyi", "*.json")
    names = {
        str(path.relative_to(side))
        for side in (left, right)
        for glob in pattern
        for path in side.rglob(glob)
        if "__pycache__" not in path.parts
    }
    for name in sorted(names):
        ours, fresh = left / name, right / name
        if not ours.exists() or not fresh.exists() or not filecmp.cmp(ours, fresh, shallow=False):
            yield name


def check_current() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        generate_python(Path(scratch))
        stale = list(differences(GEN / "python", Path(scratch)))
    if stale:
        sys.exit(f"gen/python is not current: {', '.join(stale)}. Run 'make gen' and commit the result.")


def main() -> None:
    match sys.argv[1:]:
        case ["generate"]:
            generate()
        case ["check"]:
            lint_and_compare()
            check_current()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
