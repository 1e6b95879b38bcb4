package client

import "testing"

func TestNextPage(t *testing.T) {
	for link, want := range map[string]string{
		`</v1/sessions?all=true&before=s-1>; rel="next"`: "/v1/sessions?all=true&before=s-1",
		``: "",
		`<https://evil.example/v1/sessions>; rel="next"`: "",
		`<//evil.example/v1/sessions>; rel="next"`:       "",
		`</console/>; rel="next"`:                        "",
		`</v1/sessions>; rel="prev"`:                     "",
		`/v1/sessions; rel="next"`:                       "",
		`</v1/sessions?before=%zz>; rel="next"`:          "/v1/sessions?before=%zz",
		"</v1/\x7fsessions>; rel=\"next\"":               "",
		`</v1/requests?before=g-7&limit=2>; rel="next" `: "/v1/requests?before=g-7&limit=2",
	} {
		if got := nextPage(link); got != want {
			t.Errorf("%q leads to %q, want %q", link, got, want)
		}
	}
}
