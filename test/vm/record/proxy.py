#!/usr/bin/env python3
# Stand between an NFS client and a server, and write down the records of RFC 5531 that pass.
#   proxy.py LISTEN-PORT SERVER-PORT FILE
# One line a record in FILE: "call HEX" and "reply HEX", record mark included, in the order in which they came.
import os, socket, sys, threading

listen, server, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def pump(src, dst, what):
    have = b""
    while True:
        data = src.recv(1 << 20)
        if not data:
            break
        have += data
        while len(have) >= 4:
            mark = int.from_bytes(have[:4], "big")
            if not mark >> 31:
                sys.exit("a record of several fragments")
            size = 4 + (mark & 0x7fffffff)
            if len(have) < size:
                break
            os.write(out, b"%s %s\n" % (what, have[:size].hex().encode()))
            have = have[size:]
        dst.sendall(data)
    dst.shutdown(socket.SHUT_WR)


s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", listen))
s.listen(16)
print("ready", flush=True)
while True:
    client, _ = s.accept()
    upstream = socket.create_connection(("127.0.0.1", server))
    threading.Thread(target=pump, args=(client, upstream, b"call"), daemon=True).start()
    threading.Thread(target=pump, args=(upstream, client, b"reply"), daemon=True).start()
