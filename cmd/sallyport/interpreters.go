package main

import (
	"sallyport/configs"
	"sallyport/protocols/postgres"
	"sallyport/protocols/ssh"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// interpreters turn recordings into what they meant, by protocol.
var interpreters = map[string]func(format.Header) recorder.Interpreter{
	configs.KindPostgres: postgres.Interpreter,
	configs.KindSSH:      ssh.Interpreter,
}
