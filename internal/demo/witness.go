package demo

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
	"sallyport/recorder/transparency/witness"
)

// startWitness starts the witness of the gateway's log. It is here only in that the demo's process runs it: in earnest
// somebody else does, elsewhere.
func (d *Demo) startWitness(context.Context) error {
	_, key, err := ledger.LoadKey(filepath.Join(d.dir, "keys"), "localhost/log")
	if err != nil {
		return err
	}
	w, err := witness.New(witness.Options{
		Dir: filepath.Join(d.dir, "witness"), Name: "demo-witness", Logs: []transparency.LogKey{key}, Log: d.log,
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", loopback(d.port(portWitness)))
	if err != nil {
		return err
	}
	d.witnessKey = w.PublicKey()
	d.witness = &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)}
	go func() { _ = d.witness.Serve(listener) }() // until it is closed
	return nil
}
