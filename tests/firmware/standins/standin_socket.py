"""Stand-in for `socket`, for which the access point's address is loopback, and its port the one in `ap-port`."""

import socket


class Sockets:
    def __getattr__(self, name):
        return getattr(socket, name)

    def getaddrinfo(self, host, *more):
        if host != "192.168.4.1":
            return socket.getaddrinfo(host, *more)
        with open("ap-port") as file:
            return socket.getaddrinfo("127.0.0.1", int(file.read()))
