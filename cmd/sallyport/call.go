package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

// get asks the gateway for something, as the person signed in here.
func get[T any](command *cobra.Command, path string) (T, error) {
	return call[T](command, http.MethodGet, path, nil)
}

// post has the gateway do something, as the person signed in here, and returns what it says of it.
func post[T any](command *cobra.Command, path string, in any) (T, error) {
	return call[T](command, http.MethodPost, path, in)
}

func call[T any](command *cobra.Command, method, path string, in any) (out T, err error) {
	c, err := open()
	if err != nil {
		return out, err
	}
	err = c.Do(command.Context(), method, path, in, &out)
	return out, err
}

// done has the gateway do something to what has that ID and of which it has nothing more to say, and says so: words are a format for the ID.
func done(command *cobra.Command, method, path string, in any, words, id string) error {
	c, err := open()
	if err != nil {
		return err
	}
	if err := c.Do(command.Context(), method, path, in, nil); err != nil {
		return err
	}
	if asJSON(command) {
		return printJSON(command.OutOrStdout(), map[string]any{"id": id, "done": true})
	}
	_, err = fmt.Fprintf(command.OutOrStdout(), words+"\n", visible(id))
	return err
}
