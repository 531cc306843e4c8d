"""The engine over Triton servers, from the requests up to the engine.

`connection` holds addresses and settings; `transport` sends requests, by `http_transport` (over `http_connection`) or
`grpc_transport`; `tensors` and `messages` are what answers must look like, `failures` names what goes wrong;
`shared_memory` and `region_pool` spare copies through a socket; `client` asks one server; `retries` and `endpoints`
decide when a request is tried again, and which server is asked; `served_model` reads what is served; `engine` puts all
of it together.
"""
