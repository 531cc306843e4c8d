"""Triton's ONNX Runtime backend, as a Python-based backend: runs the files that the native one runs.

For servers that lack the native backend; it knows of a configuration what CausCell's use. It runs in the server's own
environment, which holds numpy (below 2) and onnxruntime, and not causcell. Requests that Triton's scheduler batched
are evaluated at once.
"""

import json
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

THREADS_VARIABLE, CPUS_VARIABLE = "CAUSCELL_TRITON_THREADS", "CAUSCELL_TRITON_CPUS"


def count_threads(config):
    """Count the compute threads of an instance: as the server was told, as the model's configuration says, all CPUs."""
    stated = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value")
    return int(os.environ.get(THREADS_VARIABLE) or stated or os.environ.get(CPUS_VARIABLE, "0"))


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args):
        """Load ``model.onnx``."""
        config = json.loads(args["model_config"])
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count_threads(config)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # threads that wait for work would starve the other instances and the client
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider = "CUDAExecutionProvider" if args["model_instance_kind"] == "GPU" else "CPUExecutionProvider"
        self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        """Evaluate all requests at once, and return a response for each."""
        wanted = set().union(*(request.requested_output_names() for request in requests))
        names = [name for name in self._outputs if name in wanted]
        given = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            for request in requests
        ]
        alone = len(given) == 1
        inputs = given[0] if alone else [np.concatenate(parts) for parts in zip(*given, strict=True)]
        try:
            outputs = self._session.run(names, dict(zip(self._inputs, inputs, strict=True)))
        except Exception as error:
            refused = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse([], refused) for _ in requests]
        ends = np.cumsum([len(parts[0]) for parts in given])
        split = [[output] if alone else np.split(output, ends[:-1]) for output in outputs]
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, np.ascontiguousarray(parts[place]))
                    for name, parts in zip(names, split, strict=True)
                    if name in request.requested_output_names()
                ]
            )
            for place, request in enumerate(requests)
        ]
