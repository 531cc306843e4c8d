"""What stands beside the checked-in repository for production agrees with the server and with itself."""

import re
import subprocess

import pytest
import yaml
from google.protobuf import text_format
from paths import MODEL_REPOSITORY
from tritonclient.grpc import model_config_pb2

from causcell.serve.install import default_installation
from causcell.serve.server import TritonServer

REPOSITORY = MODEL_REPOSITORY
NEWER = {"--allow-client-shm", "--http-max-input-size"}
"""Flags that the tested server does not have, and the text says so."""


@pytest.fixture(scope="module")
def manifests():
    found = list(yaml.safe_load_all((REPOSITORY / "kubernetes.yaml").read_text()))
    return {each["kind"]: each["spec"] for each in found}


@pytest.fixture(scope="module")
def pod(manifests):
    return manifests["Deployment"]["template"]["spec"]


@pytest.fixture(scope="module")
def containers(pod):
    return {each["name"]: each for each in pod["containers"]}


def known_flags() -> set[str]:
    binary = default_installation().binary
    told = subprocess.run([binary, "--help"], capture_output=True, text=True)
    return set(re.findall(r"^  (--[a-z-]+)", told.stdout + told.stderr, re.MULTILINE))


@pytest.mark.serving
def test_every_flag_of_the_documents_is_one_of_the_servers(containers):
    documented = re.search(r"```\ndocker run.*?```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    after = documented.group().partition("tritonserver ")[2]
    flags = {*re.findall(r"--[a-z-]+", after), *(each.partition("=")[0] for each in containers["triton"]["args"])}
    mentioned = set(
        re.findall(r"`(--(?:allow|grpc|http|metrics|model)-[a-z-]+)", (REPOSITORY / "README.md").read_text())
    )
    assert len(flags) >= 8
    assert (flags | mentioned) - NEWER <= known_flags()


def test_what_the_text_adds_to_a_configuration_fits_it():
    """TensorRT's part after the decoder's own; its profiles name the inputs, in their shapes."""
    added = re.search(r"```\n(optimization .*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL).group(1)
    own = (REPOSITORY / "decoder" / "configs" / "gpu.pbtxt").read_text()
    config = text_format.Parse(own + added, model_config_pb2.ModelConfig())
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    for size, name in ((1, "min"), (256, "opt"), (config.max_batch_size, "max")):
        shapes = [f"{each.name}:{'x'.join(map(str, (size, *each.dims)))}" for each in config.input]
        assert accelerator.parameters[f"trt_profile_{name}_shapes"] == ",".join(shapes)


@pytest.mark.serving
def test_a_server_starts_with_the_flags_of_the_deployment(repository, containers):
    args = containers["triton"]["args"]
    own = [flag for flag in args if flag.partition("=")[0] not in NEWER | {"--model-repository"}]
    with TritonServer(repository, options=own) as server:
        assert server.is_ready()


def test_the_deployment_gives_nothing_that_is_not_needed(pod, containers):
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    for container in containers.values():
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert set(container["resources"]) == {"requests", "limits"}
    triton = containers["triton"]
    assert "ports" not in triton
    for protocol in ("grpc", "http", "metrics"):
        assert f"--{protocol}-address=127.0.0.1" in triton["args"]
    assert "--model-control-mode=none" in triton["args"]
    (models,) = (mount for mount in triton["volumeMounts"] if mount["mountPath"] == "/models")
    assert models["readOnly"]


def test_no_server_with_public_holes_is_named(containers):
    """Before 26.08; by its tag, wherever one stands."""
    for text in ((REPOSITORY / "README.md").read_text(), (REPOSITORY / "kubernetes.yaml").read_text()):
        versions = [tuple(map(int, each)) for each in re.findall(r"tritonserver:(\d+)\.(\d+)", text)]
        assert versions
        assert min(versions) >= (26, 8)
    assert re.fullmatch(
        r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3(@sha256:[0-9a-f]{64})?", containers["triton"]["image"]
    )


def test_the_deployment_contains_what_a_request_can_do(pod, containers):
    """No memory of the host, no endless bodies, no writing of models, no unbounded disk, and a probe that ends it."""
    triton = containers["triton"]
    assert "--allow-client-shm=false" in triton["args"]
    assert "--http-max-input-size=67108864" in triton["args"]
    assert "--model-control-mode=none" in triton["args"]
    for name in ("hostIPC", "hostNetwork", "hostPID"):
        assert not pod.get(name)
    for container in containers.values():
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}
    assert triton["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    stop = int(next(flag for flag in triton["args"] if flag.startswith("--exit-timeout-secs=")).partition("=")[2])
    assert stop < pod["terminationGracePeriodSeconds"]


def test_the_guide_says_what_the_development_server_is_for():
    text = " ".join((REPOSITORY / "README.md").read_text().split())
    assert "`python -m causcell.serve.install` lays down (in a checkout `make triton`) is for that alone" in text
    assert "Never let others reach it" in text


def test_the_deployments_parts_fit_together(manifests, pod, containers):
    """Volumes, the front's port and the service; what the Caddyfile reads from the environment and has no default."""
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for each in containers.values() for mount in each["volumeMounts"]} == volumes
    front = containers["front"]
    (port,) = front["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert containers["triton"][probe]["httpGet"]["port"] == port["containerPort"]
    (exposed,) = manifests["Service"]["ports"]
    assert exposed["targetPort"] == port["name"]
    assert manifests["Service"]["selector"] == manifests["Deployment"]["selector"]["matchLabels"]
    caddyfile = (REPOSITORY / "Caddyfile").read_text()
    needed = set(re.findall(r"\{\$(\w+)\}", caddyfile))
    assert needed
    assert needed <= {variable["name"] for variable in front["env"]}
    assert f"{{$CAUSCELL_PORT:{port['containerPort']}}}" in caddyfile
    assert not pod["enableServiceLinks"]  # the service's name would set that variable


def test_compose_starts_what_kubernetes_does(containers):
    """The same images, server's flags and variables of the front; one published port, and nothing writable."""
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
    triton, front = services["triton"], services["front"]
    assert triton["command"] == [*containers["triton"]["command"], *containers["triton"]["args"]]
    assert front["command"] == [*containers["front"]["command"], *containers["front"]["args"]]
    assert (triton["image"], front["image"]) == (containers["triton"]["image"], containers["front"]["image"])
    assert set(front["environment"]) == {variable["name"] for variable in containers["front"]["env"]}
    assert front["network_mode"] == "service:triton"
    assert triton["ports"] == ["8443:8443"] and "ports" not in front
    assert triton["volumes"] == [".:/models:ro"]
    for service in services.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "1000:1000"
        assert service["security_opt"] == ["no-new-privileges:true"]
