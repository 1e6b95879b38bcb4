package api

import "time"

// AuditReport is one of the auditors' reports: figures, each with the records that it counts, and the records themselves.
type AuditReport struct {
	Kind    string    `json:"kind"` // access, sessions, integrity, review
	Title   string    `json:"title"`
	From    time.Time `json:"from" doc:"At or after."`
	To      time.Time `json:"to" doc:"Before."`
	Made    time.Time `json:"made"`
	By      string    `json:"by"`
	Gateway string    `json:"gateway"`
	// Clauses are what it helps to answer. The words are ours; the standards' texts say what they say.
	Clauses []Clause      `json:"clauses"`
	Figures []Figure      `json:"figures"`
	Tables  []ReportTable `json:"tables"`
	// Checkpoint is the log over all recordings when it was made: what stands behind the records' recordings.
	Checkpoint string `json:"checkpoint,omitempty"`
	Witnessed  bool   `json:"witnessed" doc:"A witness has cosigned the checkpoint."`
}

// Clause is one of a standard.
type Clause struct {
	Standard string `json:"standard"`
	Clause   string `json:"clause"`
	Asks     string `json:"asks" doc:"In our words."`
}

// Figure is a number, and what it counts.
type Figure struct {
	Name string `json:"name"`
	// Table is the title of the table whose rows it counts, Records their first columns.
	Value   int      `json:"value"`
	Table   string   `json:"table"`
	Records []string `json:"records"`
}

// ReportTable is records: the first column names each.
type ReportTable struct {
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}
