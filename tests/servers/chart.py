"""The chart as its objects, and each container as the files, variables and arguments that it would start with."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers.helm import VALUES, documents, render

Manifest = Mapping[str, Any]  # Any: a Kubernetes object, whose schema is checked where it matters
SETS = tuple(sorted(path.stem for path in VALUES.glob("*.yaml")))
LASTING = frozenset({"DaemonSet", "Deployment", "StatefulSet"})
ON_THE_POD = frozenset({"emptyDir", "hostPath", "persistentVolumeClaim"})


@cache
def _rendered(values: str, more: tuple[str, ...]) -> str:
    return json.dumps(documents(render("--values", str(VALUES / f"{values}.yaml"), *more)))


def manifests(values: str, *more: str) -> list[Manifest]:
    """The objects of one of the shipped sets of values; each call gives its own, rendered once."""
    objects: list[Manifest] = json.loads(_rendered(values, more))
    return objects


def named(objects: Sequence[Manifest], kind: str, ending: str) -> Manifest:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(ending)]
    return found


def pod_templates(objects: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod's metadata and spec with the name of what makes it."""
    for o in objects:
        name = f"{o['kind']}/{o['metadata']['name']}"
        if o["kind"] == "Pod":
            yield name, o
        elif o["kind"] == "CronJob":
            yield name, o["spec"]["jobTemplate"]["spec"]["template"]
        elif "template" in o.get("spec", {}):
            yield name, o["spec"]["template"]


def pods(objects: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod's spec with the name of what makes it."""
    return ((name, template["spec"]) for name, template in pod_templates(objects))


@dataclass(frozen=True, slots=True)
class Container:
    """One container, with its mounts as folders of this machine and every path in its words leading there."""

    maker: str
    component: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def containers(objects: Sequence[Manifest], folder: Path) -> Iterator[Container]:
    """Every container with its files in place: settings as the chart has them, secrets as their own names."""
    for number, (maker, template) in enumerate(pod_templates(objects)):
        (container,) = template["spec"]["containers"]
        root = folder / str(number)
        places = _put_files(objects, template["spec"], container, root)
        yield Container(
            maker,
            template["metadata"]["labels"]["app.kubernetes.io/component"],
            tuple(_moved(word, places) for word in container["args"]),
            {v["name"]: _moved(_value(v), places) for v in container.get("env", [])},
        )


def _value(variable: Manifest) -> str:
    """What a variable is on a pod; a pod here has this machine's own address."""
    told = {"status.podIP": "127.0.0.1"}
    return str(variable["value"] if "value" in variable else told[variable["valueFrom"]["fieldRef"]["fieldPath"]])


def _put_files(objects: Sequence[Manifest], pod: Manifest, container: Manifest, root: Path) -> Mapping[str, Path]:
    """Makes the mounts under `root`; returns where each mount path is there."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    places = {}
    for mount in container["volumeMounts"]:
        place = places[mount["mountPath"]] = root / mount["mountPath"].lstrip("/")
        files = _files(objects, volumes.get(mount["name"], {"emptyDir": {}}))
        if "subPath" in mount:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(files[mount["subPath"]])
            continue
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text)
    return places


def _files(objects: Sequence[Manifest], volume: Manifest) -> Mapping[str, str]:
    """What a volume brings: a secret's file says which secret and key it is."""
    if "configMap" in volume:
        name = volume["configMap"]["name"]
        ((data),) = [o["data"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name]
        return dict(data)
    if "projected" in volume:
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        return {item["path"]: f"{s['name']}/{item['key']}" for s in sources for item in s["items"]}
    if "secret" in volume:
        secret = volume["secret"]
        return {item["path"]: f"{secret['secretName']}/{item['key']}" for item in secret.get("items", [])}
    assert ON_THE_POD & volume.keys(), volume
    return {}


def _moved(word: str, places: Mapping[str, Path]) -> str:
    for path in sorted(places, key=len, reverse=True):
        before, found, after = word.partition(path)
        if found and (not before or before.endswith("=")) and after[:1] in ("", "/"):
            return f"{before}{places[path]}{after}"
    return word
