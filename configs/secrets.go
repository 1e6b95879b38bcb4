package configs

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// EnvironmentSecrets are the names of all environment variables that hold secrets of the configuration.
func (c *Config) EnvironmentSecrets() []string {
	found := map[string]bool{}
	var look func(reflect.Value)
	look = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			if ref, ok := v.Interface().(SecretRef); ok {
				if name, ok := strings.CutPrefix(string(ref), "env:"); ok {
					found[name] = true
				}
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
	return slices.Sorted(maps.Keys(found))
}
