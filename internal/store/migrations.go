package store

import (
	"embed"
	"io/fs"
	"strings"

	"golang.org/x/tools/txtar"
)

//go:embed migrations/*/*.sql
var migrationFiles embed.FS

func must(f fs.FS, err error) fs.FS {
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return f
}

// carried is migrations in a database's own words, without those that end in foreign and are for the other database: a
// step for which the words are not enough stands in NAME.sqlite.sql and NAME.postgres.sql.
func carried(files fs.FS, foreign string, words *strings.Replacer) (fs.FS, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	var own txtar.Archive
	for _, name := range names {
		if strings.HasSuffix(name, foreign) {
			continue
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		own.Files = append(own.Files, txtar.File{Name: name, Data: []byte(words.Replace(string(text)))})
	}
	return txtar.FS(&own)
}
