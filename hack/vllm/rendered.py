"""The backend of `backend.yaml` and the pod that the operator's own rendering makes of it."""

from pathlib import Path
from typing import Any

import yaml

from weir_core.identity import frozen_backend, identity_of
from weir_core.resources import ModelBackend, from_object
from weir_operator.objects import Owner
from weir_operator.workloads import identity_objects, workload_problems

Obj = dict[str, Any]
WRITTEN = Path(__file__).parent / "backend.yaml"


def read_backend(*more_args: str) -> ModelBackend:
    """Return the backend as `kubectl apply` would give it to the operator, with further flags."""
    obj = yaml.safe_load(WRITTEN.read_text())
    obj["spec"]["vllm"]["args"] += more_args
    found = from_object(obj)
    assert isinstance(found, ModelBackend), found
    assert not workload_problems(found), workload_problems(found)
    return found


def deployment_of(backend: ModelBackend) -> Obj:
    """Return the Deployment that the operator applies for the backend's newest identity."""
    owner = Owner(
        api_version="inference.weir.dev/v1alpha1",
        kind="ModelRevision",
        name=identity_of(backend),
        uid="00000000-0000-4000-8000-000000000001",
    )
    objects = identity_objects(backend, revision=owner)
    return next(one for one in objects if one["kind"] == "Deployment")


def pod_spec(backend: ModelBackend) -> Obj:
    """Return the pod's spec in that Deployment."""
    spec: Obj = deployment_of(backend)["spec"]["template"]["spec"]
    return spec


LARGE = read_backend()
UPSTREAM = frozen_backend(LARGE)
"""What routers know of it, its URL in the cluster included: `run.sh` gives that name an address."""

if __name__ == "__main__":
    print(UPSTREAM.url.removeprefix("http://").partition(":")[0])
