"""The engine over Triton servers, from the requests up to the engine.

`connection` holds addresses and settings; `transport` sends requests, `failures` names what goes wrong with them;
`shared_memory` and `region_pool` spare copies through a socket; `client` asks one server; `retries` and `endpoints`
decide when a request is tried again, and which server is asked; `served_model` reads what is served; `engine` puts all
of it together.
"""
