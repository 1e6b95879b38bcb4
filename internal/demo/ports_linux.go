package demo

import (
	"io"
	"net"
	"strconv"
)

// claimPort tells all demos of this machine that a port is one's own, also those of other users or with another directory for temporary
// files, which do not see the register: by the name of a socket without a file, which, as ports do, belongs to the network namespace.
func claimPort(port int) (io.Closer, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "@sallyport-demo-port-" + strconv.Itoa(port)})
}
