package policy

import (
	"fmt"
	"testing"

	"sallyport/configs"
)

// A decision over a thousand policies that all speak of the account, each with a condition, of which the last admits.
func BenchmarkDecide(b *testing.B) {
	var policies []configs.Policy
	for i := range 1000 {
		policies = append(policies, configs.Policy{
			Name: fmt.Sprint("p", i), Groups: []string{"eng"}, Accounts: []string{"*@*"}, MaxDuration: hours(1), Approve: configs.Approve{Auto: true},
			When: fmt.Sprintf(`request.ticket == "OPS-%d" && target.labels.env == "prod"`, i),
		})
	}
	ready := compiled(b, policies...)
	ask := asked()
	ask.Ticket = "OPS-999"
	for b.Loop() {
		if e := Decide(ready, ask); e.Winner == nil || e.Winner.Name != "p999" {
			b.Fatal(e.Detail())
		}
	}
}
