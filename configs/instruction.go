package configs

// Instruction is one file's or program's share of what a target needs before the gateway can use it: text to paste.
type Instruction struct {
	Name  string // stable word: sql, pg_hba, postgresql_conf, trusted_ca, principals, sshd_config, ansible
	Title string // what it is and where it goes
	Text  string
}
