"""What paramiko does with a server; prints what it saw."""
import os, socket, sys, threading, time, hashlib
import paramiko

e = os.environ
key = paramiko.Ed25519Key.from_private_key_file(e["SIDE_KEY"])
if e["SIDE_CERTIFICATE"]:
    key.load_certificate(e["SIDE_CERTIFICATE"])


def connect():
    c = paramiko.SSHClient()
    kind, blob = e["SIDE_HOSTKEY"].split()
    name = e["SIDE_HOST"] if e["SIDE_PORT"] == "22" else "[%s]:%s" % (e["SIDE_HOST"], e["SIDE_PORT"])
    c.get_host_keys().add(name, kind, paramiko.Ed25519Key(data=__import__("base64").b64decode(blob)))
    sock = paramiko.ProxyCommand(e["SIDE_PROXY"]) if e["SIDE_PROXY"] else None
    c.connect(e["SIDE_HOST"], int(e["SIDE_PORT"]), e["SIDE_USER"], pkey=key, allow_agent=False, look_for_keys=False, sock=sock, timeout=30)
    return c


c = connect()
i, o, err = c.exec_command("cat; echo err >&2; exit 7")
i.write("input\n"); i.channel.shutdown_write()
print("exec", o.read(), err.read(), o.channel.recv_exit_status())

start = time.time()
i, o, err = c.exec_command("sleep 5 & echo hi; exit 3")
print("background", o.channel.recv_exit_status(), time.time() - start < 3)

i, o, err = c.exec_command("head -c 3000000 /dev/zero; exit 5")
data = o.read()
print("3MB", len(data), o.channel.recv_exit_status())

i, o, err = c.exec_command("kill -TERM $$")
print("signal", o.channel.recv_exit_status())

ch = c.invoke_shell(term="xterm", width=90, height=30)
ch.send(b"PS1='$ '; echo size-$(stty size)\n")
seen = b""
while b"size-30 90" not in seen:
    seen += ch.recv(4096)
ch.resize_pty(width=100, height=40)
while b"size-40 100" not in seen:
    ch.send(b"echo size-$(stty size)\n")
    time.sleep(0.1)
    seen += ch.recv(4096)
ch.send(b"exit 4\n")
print("shell", ch.recv_exit_status())

sftp = c.open_sftp()
name = e["SIDE_WORK"] + "/paramiko"
blob = bytes(range(256)) * 12000
with sftp.open(name, "wb") as f:
    f.set_pipelined(True)
    f.write(blob)
sftp.get(name, name + ".back")
print("sftp", sftp.stat(name).st_size, open(name + ".back", "rb").read() == blob)
sftp.rename(name, name + ".2"); sftp.chmod(name + ".2", 0o600)
print(sorted(f for f in sftp.listdir(e["SIDE_WORK"]) if f.startswith("paramiko")))
try:
    sftp.stat("/nonexistent")
except IOError as x:
    print("missing", x.errno)

results = [None] * 20
kept = []  # a channel that Python forgets while its end is under way sends an EOF too many, for which sshd ends the connection
def one(n):
    i, o, err = c.exec_command("echo %d; exit %d" % (n, n))
    kept.append((i, o, err))
    results[n] = (o.read(), o.channel.recv_exit_status())
threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
print("parallel", results)
try:
    c.get_transport().open_channel("x-unknown@example.com")
except paramiko.ChannelException as x:
    print("unknown channel", x.code)
c.close()
