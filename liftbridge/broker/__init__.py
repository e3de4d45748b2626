"""What endpoints call: the request handlers, whatever the wire format.

:mod:`~liftbridge.broker.api` has the types that an endpoint plugin may use; the other modules are the handlers.
Requests and responses of the control calls are the messages of ``proto/api.proto``, because that file is the public
contract; nothing here knows HTTP/2, gRPC framing or sockets.
"""
