package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"sallyport/recorder"
	"sallyport/recorder/lock"
	"sallyport/recorder/replay"
	"sallyport/web/api"
)

func identityFlag(flags *pflag.FlagSet, to *string) {
	flags.StringVar(to, "identity", "", "`FILE` of age identities that opens a locked recording")
}

// unmasking is how a command asks for what masking hides.
type unmasking struct {
	unmasked bool
	reason   string
}

func (u *unmasking) flags(flags *pflag.FlagSet) {
	flags.BoolVar(&u.unmasked, "unmasked", false, "show what masking hides, too (permission recordings.unmask, audited); needs --reason")
	flags.StringVar(&u.reason, "reason", "", "why what masking hides is to be seen: a `TEXT` for the audit log")
}

func (u unmasking) add(q url.Values) {
	if u.unmasked {
		q.Set("unmasked", "true")
	}
	if u.reason != "" {
		q.Set("reason", u.reason)
	}
}

// isFile reports whether what was named is a recording's file and not a session.
func isFile(name string) bool { return strings.HasSuffix(name, ".srec") }

// itemsToReplay are a recording's, from the gateway or read here. Call done when they have been ranged over.
func itemsToReplay(command *cobra.Command, name, identity string, u unmasking, o replay.Options) (items iter.Seq2[api.Item, error], done func(), err error) {
	if identity == "" && !isFile(name) {
		c, err := open()
		if err != nil {
			return nil, nil, err
		}
		items, err = itemsFrom(command.Context(), c, name, u, o)
		return items, func() {}, err
	}
	recording, done, err := openHere(command, name, identity, u)
	if err != nil {
		return nil, nil, err
	}
	return recording.Items(command.Context()), done, nil
}

// exportHere exports a recording that is read here.
func exportHere(command *cobra.Command, name, identity, format, output string, u unmasking) error {
	recording, done, err := openHere(command, name, identity, u)
	if err != nil {
		return err
	}
	defer done()
	if output == "" || output == "-" {
		return recording.Export(command.Context(), format, command.OutOrStdout(), recorder.ExportOptions{})
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(recording.Export(command.Context(), format, w, recorder.ExportOptions{})) }()
	err = writeWhole(output, r)
	r.Close()
	return err
}

// openHere opens a recording's file, or a session's as the gateway has it stored, which it fetches. What is fetched stays
// as it was, locked if it was, in a temporary file until done is called.
func openHere(command *cobra.Command, name, identity string, u unmasking) (_ *recorder.Copy, done func(), err error) {
	var identities []age.Identity
	if identity != "" {
		if identities, err = readIdentities(command, identity); err != nil {
			return nil, nil, err
		}
	}
	path, remove := name, func() {}
	if !isFile(name) {
		if path, err = fetchStored(command.Context(), name, u); err != nil {
			return nil, nil, err
		}
		remove = func() { os.Remove(path) }
	}
	recording, err := recorder.OpenCopy(path, interpreters, identities...)
	if err != nil {
		remove()
		return nil, nil, err
	}
	if !isFile(name) && recording.Header.Session != name {
		recording.Close()
		remove()
		return nil, nil, fmt.Errorf("the gateway sent the recording of session %.80q in place of %.80q", recording.Header.Session, name)
	}
	recording.Unmasked = u.unmasked
	return recording, func() { recording.Close(); remove() }, nil
}

func fetchStored(ctx context.Context, session string, u unmasking) (path string, err error) {
	c, err := open()
	if err != nil {
		return "", err
	}
	q := url.Values{"session": {session}, "format": {recorder.Stored}}
	unmasking{reason: u.reason}.add(q) // what is stored has everything
	body, err := c.Stream(ctx, "/v1/export?"+q.Encode())
	if err != nil {
		return "", err
	}
	defer body.Close()
	file, err := os.CreateTemp("", "sallyport-*.srec") // with mode 0600
	if err != nil {
		return "", fmt.Errorf("keep the recording: %w", err)
	}
	_, err = io.Copy(file, body)
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(file.Name())
		return "", fmt.Errorf("fetch the recording: %w", err)
	}
	return file.Name(), nil
}

// readIdentities reads a file of identities. A passphrase is asked for on the terminal.
func readIdentities(command *cobra.Command, path string) ([]age.Identity, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the identity: %w", err)
	}
	defer file.Close()
	all, err := lock.Identities(file, func() (string, error) {
		in := int(os.Stdin.Fd())
		if !term.IsTerminal(in) {
			return "", errors.New("it is locked with a passphrase, and there is no terminal to ask for it; open it first: age -d")
		}
		fmt.Fprintf(command.ErrOrStderr(), "Passphrase of %s: ", path)
		typed, err := term.ReadPassword(in)
		fmt.Fprintln(command.ErrOrStderr())
		return string(bytes.TrimRight(typed, "\r\n")), err
	})
	if err != nil {
		return nil, fmt.Errorf("read the identity in %s: %w", path, err)
	}
	return all, nil
}
