#!/usr/bin/env python3
"""Writes what a binary of cross/build is made of: an SBOM (CycloneDX 1.5, JSON), and the licences of its third parties.

    cross/components.py TRIPLE BINARY SBOM NOTICES

Only what is linked is listed: the crates that `cargo tree` names for this target, without those that merely build it, and the
libraries of the toolchain, whose versions the compilers left in the binary. The same input gives the same bytes; the time is
SOURCE_DATE_EPOCH. Asks no network.
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

PACKAGE = "ocpp-tunnel"
ROOT = pathlib.Path(__file__).resolve().parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
ZIG = ROOT / "target/cross-venv/lib"
# Files of a crate that speak of its licence.
LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    triple, binary, sbom, notices = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    crates = linked_crates(triple)
    runtime = toolchain(triple, binary)
    document = cyclonedx(triple, binary, crates, runtime)
    sbom.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    notices.write_text(licence_texts(crates, runtime), encoding="utf-8")


# === what is linked ===


def linked_crates(triple):
    """Each linked crate as cargo's metadata has it, with "sha256" and "needs" (ids) added, in the order of their names."""
    tree = cargo("tree", "--package", PACKAGE, "--edges", "normal,no-proc-macro", "--target", triple,
                 "--prefix", "none", "--no-dedupe", "--format", "{p}")
    # "name v1.2.3", and a path in parentheses for our own.
    linked = {tuple(line.split(" ")[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", triple))
    checksums = {
        (entry["name"], entry["version"]): entry["checksum"]
        for entry in tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
        if entry.get("source") == REGISTRY
    }
    crates = {}
    for crate in metadata["packages"]:
        if (crate["name"], "v" + crate["version"]) in linked:
            if crate["source"] not in (None, REGISTRY):
                sys.exit(f"cross/components.py: {crate['id']} comes from neither this repository nor crates.io")
            crate["sha256"] = checksums.get((crate["name"], crate["version"]))
            crates[crate["id"]] = crate
    if len(crates) != len(linked):
        sys.exit(f"cross/components.py: cargo tree names {len(linked)} crates, cargo metadata {len(crates)} of them")
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in crates:
            needs = {
                dependency["pkg"] for dependency in node["deps"]
                if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            }
            crates[node["id"]]["needs"] = sorted(needs & crates.keys())
    return sorted(crates.values(), key=lambda crate: (crate["name"], crate["version"]))


def cargo(command, *arguments):
    run = [os.environ.get("CARGO", "cargo"), command, "--locked", "--offline", *arguments]
    done = subprocess.run(run, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"cross/components.py: {' '.join(run)} failed; see above")
    return done.stdout.decode()


def toolchain(triple, binary):
    """Libraries that no crate stands for: Rust's own, the C library, and what unwinds stacks."""
    comment = subprocess.run(["readelf", "--wide", "--string-dump=.comment", binary],
                             stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace")
    rust = found(r"rustc version (\S+)", comment, binary)
    llvm = found(r"LLD (\d\S*)", comment, binary)
    zig = next(ZIG.glob("python3*/site-packages/ziglang/lib"), None)
    if zig is None:
        sys.exit("cross/components.py: no zig in target/cross-venv; cross/build installs it")
    musl = found(r'VERSION "([^"]+)"', (zig / "libc/musl/src/internal/version.h").read_text(), "musl")
    own = (ROOT / "LICENSE-APACHE").read_text(encoding="utf-8")
    return [
        {"name": "rust-std", "version": rust, "license": "MIT OR Apache-2.0", "url": "https://github.com/rust-lang/rust",
         "about": "Rust's standard library", "text": own},
        {"name": "musl", "version": musl, "license": "MIT", "url": "https://musl.libc.org/",
         "about": "the C library", "text": (zig / "libc/musl/COPYRIGHT").read_text(encoding="utf-8")},
        {"name": "libunwind", "version": llvm, "license": "Apache-2.0 WITH LLVM-exception",
         "url": "https://github.com/llvm/llvm-project", "about": "LLVM's unwinder and compiler-rt",
         "text": (zig / "libunwind/LICENSE.TXT").read_text(encoding="utf-8")},
    ]


def found(pattern, text, where):
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"cross/components.py: {where} doesn't say {pattern!r}")
    return match.group(1)


# === the SBOM ===


def cyclonedx(triple, binary, crates, runtime):
    product = next(crate for crate in crates if crate["name"] == PACKAGE)
    described = [component(crate) for crate in crates if crate is not product]
    described += [
        {"type": "library", "bom-ref": f"{library['name']}@{library['version']}", "name": library["name"],
         "version": library["version"], "description": library["about"], "scope": "required",
         "licenses": [{"expression": library["license"]}],
         "externalReferences": [{"type": "website", "url": library["url"]}]}
        for library in runtime
    ]
    main_component = component(product) | {
        "type": "application",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(binary.read_bytes()).hexdigest()}],
    }
    main_component.pop("scope")
    depends = {reference(crate): [] for crate in crates}
    names = {crate["id"]: reference(crate) for crate in crates}
    for crate in crates:
        depends[reference(crate)] = sorted(names[need] for need in crate["needs"])
    depends[reference(product)] += [f"{library['name']}@{library['version']}" for library in runtime]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(
                int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": main_component,
            "properties": [{"name": "cargo:target", "value": triple}],
        },
        "components": described,
        "dependencies": [{"ref": name, "dependsOn": needs} for name, needs in sorted(depends.items())],
    }
    # A number of this very content, where the standard's example has a random one.
    content = json.dumps(document, sort_keys=True)
    return {"bomFormat": document["bomFormat"], "specVersion": document["specVersion"],
            "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, content).urn, **document}


def component(crate):
    described = {
        "type": "library",
        "bom-ref": reference(crate),
        "name": crate["name"],
        "version": crate["version"],
        "scope": "required",
        "licenses": [{"expression": expression(crate)}],
        "purl": f"pkg:cargo/{crate['name']}@{crate['version']}",
    }
    if crate["sha256"]:
        described["hashes"] = [{"alg": "SHA-256", "content": crate["sha256"]}]
    if crate["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
    return described


def reference(crate):
    return f"{crate['name']}@{crate['version']}"


def expression(crate):
    if not crate["license"]:
        sys.exit(f"cross/components.py: {crate['id']} names no licence")
    # Before SPDX expressions, crates wrote OR as a slash.
    return crate["license"].replace("/", " OR ")


# === the licences ===


def licence_texts(crates, runtime):
    """Who holds which rights: a line for each component, then every text once with those that it holds for."""
    lines, texts = [], {}
    for crate in crates:
        if crate["source"] is None:
            continue
        name = reference(crate)
        lines.append(f"{name}  ({expression(crate)})  {crate['repository'] or ''}".rstrip())
        for text in texts_of(crate):
            texts.setdefault(text, []).append(name)
    for library in runtime:
        name = f"{library['name']}@{library['version']}"
        lines.append(f"{name}  ({library['license']})  {library['url']}")
        texts.setdefault(tidy(library["text"]), []).append(name)
    parts = [
        "Third parties in ocpp-tunnel\n\n"
        "The binary is linked from what is listed here. Where a licence offers a choice, the texts of the choice made are given:\n"
        "MIT where it is among them, else all.\n\n" + "\n".join(lines)
    ]
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        parts.append("=" * 100 + "\nFor " + ", ".join(names) + ":\n\n" + text)
    return "\n\n".join(parts) + "\n"


def texts_of(crate):
    directory = pathlib.Path(crate["manifest_path"]).parent
    files = sorted(path for path in directory.iterdir() if path.is_file() and LICENCE_FILE.match(path.name))
    choices = expression(crate).split(" OR ")
    mit = [path for path in files if "mit" in path.name.lower()]
    if "MIT" in choices and mit:
        files = mit
    if files:
        return [tidy(path.read_text(encoding="utf-8", errors="replace")) for path in files]
    # Some crates are published without a text; then who wrote it stands for the copyright line.
    authors = ", ".join(crate["authors"]) or f"the authors of {crate['name']}"
    text = "LICENSE-MIT" if "MIT" in choices else "LICENSE-APACHE"
    body = (ROOT / text).read_text(encoding="utf-8")
    return [tidy(re.sub(r"^Copyright .*$", f"Copyright (c) {authors}", body, count=1, flags=re.MULTILINE))]


def tidy(text):
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").strip("\n").split("\n"))


if __name__ == "__main__":
    main()
