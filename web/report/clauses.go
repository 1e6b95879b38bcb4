package report

import "sallyport/web/api"

const (
	soc2 = "SOC 2 (TSC 2017)"
	pci  = "PCI DSS 4.0.1"
	iso  = "ISO/IEC 27001:2022"
	gdpr = "GDPR"
)

// clauses are what each report helps to answer, in our words.
var clauses = map[string][]api.Clause{
	Access: {
		{Standard: soc2, Clause: "CC6.1", Asks: "logical access controls over what is to be protected"},
		{Standard: soc2, Clause: "CC6.2", Asks: "access is authorised before it is given, and removed when it is not needed"},
		{Standard: soc2, Clause: "CC6.3", Asks: "least privilege and separation of duties"},
		{Standard: pci, Clause: "7.2.2, 7.2.3", Asks: "access by need, approved by somebody authorised"},
		{Standard: pci, Clause: "8.2.1, 8.2.2", Asks: "unique identities; shared accounts by exception, for a time, justified, approved, each action attributable"},
		{Standard: iso, Clause: "A.5.15, A.5.18, A.8.2", Asks: "access is given, reviewed and removed by rule; privileged access is restricted"},
		{Standard: gdpr, Clause: "Art. 32(1)(b), 32(4)", Asks: "confidentiality; people act on instructions only"},
	},
	Sessions: {
		{Standard: soc2, Clause: "CC6.1", Asks: "logical access is controlled and can be told to a person"},
		{Standard: soc2, Clause: "CC7.2", Asks: "anomalies are watched for"},
		{Standard: pci, Clause: "10.2.1.1, 10.2.1.2", Asks: "individual access and all acts of administrators are logged"},
		{Standard: pci, Clause: "10.2.1.3", Asks: "access to the logs is logged"},
		{Standard: pci, Clause: "10.2.1.4", Asks: "invalid attempts are logged"},
		{Standard: iso, Clause: "A.8.15, A.8.16", Asks: "logs are made, kept and looked at"},
		{Standard: gdpr, Clause: "Art. 30, 32(1)(d)", Asks: "records of processing; measures are tested and evaluated"},
	},
	Integrity: {
		{Standard: soc2, Clause: "CC7.2, CC7.3", Asks: "events are detected and evaluated"},
		{Standard: pci, Clause: "10.2.1.6", Asks: "starts, stops and pauses of the logs are logged"},
		{Standard: pci, Clause: "10.3.2, 10.3.4", Asks: "logs are protected from change, and changes are detected"},
		{Standard: pci, Clause: "10.3.3", Asks: "logs are backed up promptly to a central place where they are hard to change"},
		{Standard: pci, Clause: "10.5.1", Asks: "a year of logs is kept, three months at hand"},
		{Standard: pci, Clause: "10.7.2", Asks: "failures of logging are detected"},
		{Standard: iso, Clause: "A.5.28, A.8.15", Asks: "evidence is collected and protected"},
		{Standard: gdpr, Clause: "Art. 32(1)(b)", Asks: "integrity of systems that process personal data"},
	},
	Review: {
		{Standard: soc2, Clause: "CC6.2, CC6.3", Asks: "rights are reviewed and removed when they are not needed"},
		{Standard: pci, Clause: "7.2.4", Asks: "rights are reviewed at least every six months, with sign-off"},
		{Standard: pci, Clause: "7.2.5.1", Asks: "so are those of applications and systems"},
		{Standard: pci, Clause: "8.6.1", Asks: "interactive use of system accounts is an exception"},
		{Standard: iso, Clause: "A.5.18, A.8.2", Asks: "access rights are reviewed"},
		{Standard: gdpr, Clause: "Art. 30, 32(1)(d)", Asks: "records of processing; measures are evaluated regularly"},
	},
}
