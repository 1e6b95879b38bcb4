package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// EnvironmentSecrets are the names of all environment variables that hold secrets of the configuration.
func (c *Config) EnvironmentSecrets() []string {
	found := map[string]bool{}
	for ref := range c.secrets() {
		if name, ok := strings.CutPrefix(string(ref), "env:"); ok {
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// LintSecrets names the files of secrets that are not there, which is noticed only when they are used.
func (c *Config) LintSecrets() []string {
	var all []string
	for ref := range c.secrets() {
		if file, ok := strings.CutPrefix(string(ref), "file:"); ok {
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
				all = append(all, fmt.Sprintf("%s, which is to hold a secret, is not there yet", file))
			}
		}
	}
	slices.Sort(all)
	return all
}

// secrets are all references to secrets in the configuration.
func (c *Config) secrets() map[SecretRef]bool {
	found := map[SecretRef]bool{}
	var look func(reflect.Value)
	look = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			if ref, ok := v.Interface().(SecretRef); ok && ref != "" {
				found[ref] = true
			}
		case reflect.Pointer:
			if !v.IsNil() {
				look(v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					look(v.Field(i))
				}
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				look(v.Index(i))
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				look(v.MapIndex(key))
			}
		}
	}
	look(reflect.ValueOf(c))
	return found
}
