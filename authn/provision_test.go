package authn

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

const (
	directoryToken = "0123456789abcdef0123456789abcdef-a"
	otherToken     = "0123456789abcdef0123456789abcdef-b"
)

// provisionedRig is a rig whose provider provisions, and another provider that does too.
func provisionedRig(t *testing.T, change ...func(*configs.Config)) *rig {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(directoryToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AUTHN_TEST_SCIM", otherToken)
	return newRig(t, append([]func(*configs.Config){func(c *configs.Config) {
		c.Provider.Name = "company"
		c.Provider.SCIM = &configs.SCIM{Token: configs.SecretRef("file:" + token)}
		c.Providers = []configs.Provider{{Name: "partner", Issuer: "https://partner.example", ClientID: "gateway", Groups: []string{"contractors"}, SCIM: &configs.SCIM{Token: "env:AUTHN_TEST_SCIM", Attribute: "userName"}}}
	}}, change...)...)
}

// scim sends a request as a provider would; the answer's JSON is read into a map.
func (r *rig) scim(token, method, path, body string, want int) map[string]any {
	r.t.Helper()
	got, _ := r.scimIf(token, method, path, body, "", "", want)
	return got
}

// scimIf is scim under a condition, and returns the answer's ETag too.
func (r *rig) scimIf(token, method, path, body, condition, version string, want int) (map[string]any, string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL+"/scim/v2"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/scim+json; charset=utf-8")
	if condition != "" {
		request.Header.Set(condition, version)
	}
	answer, err := r.server.Client().Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if answer.StatusCode != want {
		r.t.Fatalf("%s %s: %s, not %d\n%s", method, path, answer.Status, want, text)
	}
	var got map[string]any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &got); err != nil {
			r.t.Fatalf("%s %s: %v\n%s", method, path, err, text)
		}
	}
	return got, answer.Header.Get("ETag")
}

// As Entra ID creates a user and a group.
const entraUser = `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
	"externalId":"alice","userName":"Alice@example.com","active":true,"displayName":"Alice Engineer","meta":{"resourceType":"User"},
	"name":{"formatted":"Alice E","familyName":"Engineer","givenName":"Alice"},"emails":[{"primary":true,"type":"work","value":"alice@example.com"}],
	"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"department":"7"},"roles":[]}`

const patchOp = `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[`

func (r *rig) entra() (person, group string) {
	r.t.Helper()
	person = r.scim(directoryToken, "POST", "/Users", entraUser, 201)["id"].(string)
	group = r.scim(directoryToken, "POST", "/Groups", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"externalId":"8aa1a0c0","displayName":"leads","members":[],"meta":{"resourceType":"Group"}}`, 201)["id"].(string)
	return person, group
}

// signInProvisioned signs alice in as the provider proved her.
func (r *rig) signInProvisioned(t *testing.T) (Identity, error) {
	t.Helper()
	who := alice
	who.Issuer, who.match, who.Groups = r.company.URL, "alice", []string{}
	return r.SignIn(t.Context(), who, "")
}

// TestEntraProvisions: groups by SCIM serve as groups of the provider; a lost one is told, and who is made inactive is out at once.
func TestEntraProvisions(t *testing.T) {
	r := provisionedRig(t)
	_, err := r.signInProvisioned(t)
	refused(t, err, refusal.IdentityDisabled) // whom it does not know may not sign in
	person, group := r.entra()
	r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+`{"op":"Add","path":"members","value":[{"value":"`+person+`"}]}]}`, 200)

	heard := r.heard()
	who, err := r.signInProvisioned(t)
	if err != nil || !slices.Equal(who.Groups, []string{"leads"}) {
		t.Fatalf("%v, %v", who.Groups, err)
	}
	if m, err := r.Members(t.Context(), []string{"leads"}); err != nil || len(m) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	groups := func() []string { return must(r.Current(t.Context(), who))(t).Groups }

	r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+`{"op":"Replace","path":"displayName","value":"heads"}]}`, 200)
	if !slices.Equal(groups(), []string{"heads"}) || !slices.Equal(heard(), []string{"heads"}) {
		t.Errorf("renamed: %v, told %v", groups(), heard())
	}
	// Only the one that is named is removed, by whichever way.
	for _, remove := range []string{
		`{"op":"Remove","path":"members[value eq \"` + person + `\"]"}`,
		`{"op":"Remove","path":"members","value":[{"value":"` + person + `"}]}`,
		`{"op":"Remove","path":"members"}`,
	} {
		r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+`{"op":"Add","path":"members","value":[{"value":"`+person+`"}]}]}`, 200)
		if !slices.Equal(groups(), []string{"heads"}) {
			t.Fatalf("added: %v", groups())
		}
		r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+`{"op":"Remove","path":"members[value eq \"p-another\"]"},{"op":"Remove","path":"members","value":[{"value":"p-another"}]}]}`, 200)
		if !slices.Equal(groups(), []string{"heads"}) {
			t.Fatalf("another was removed: %v", groups())
		}
		r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+remove+`]}`, 200)
		if len(groups()) != 0 || len(heard()) != 0 {
			t.Fatalf("%s: %v, told %v", remove, groups(), heard())
		}
	}

	ended, stop := r.Watch(who)
	defer stop()
	got := r.scim(directoryToken, "PATCH", "/Users/"+person, patchOp+`{"op":"Replace","path":"active","value":"False"},
		{"op":"Replace","path":"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department","value":"8"},
		{"op":"Add","value":{"name.givenName":"Alicia","emails[type eq \"work\"].value":"a@example.com"}}]}`, 200)
	if got["active"] != false || got["name"].(map[string]any)["givenName"] != "Alicia" {
		t.Errorf("%v", got)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("who holds something for her is not told")
	}
	refused(t, r.Standing(t.Context(), who), refusal.IdentityDisabled)
	_, err = r.signInProvisioned(t)
	refused(t, err, refusal.IdentityDisabled)
	if e := r.events("login.withdrawn"); len(e) != 1 || e[0].Fields["identity"] != who.Key() {
		t.Errorf("%+v", e)
	}
	r.scim(directoryToken, "PATCH", "/Users/"+person, patchOp+`{"op":"Replace","path":"active","value":"True"}]}`, 200)
	if who, err = r.signInProvisioned(t); err != nil {
		t.Fatal(err)
	}
	r.scim(directoryToken, "DELETE", "/Users/"+person, "", 204)
	refused(t, r.Standing(t.Context(), who), refusal.IdentityDisabled)
	if e := r.events("directory.person"); len(e) != 4 || e[3].Fields["did"] != "deleted" {
		t.Errorf("%+v", e)
	}
}

// TestOktaProvisions: as Okta asks, replaces and closes.
func TestOktaProvisions(t *testing.T) {
	r := provisionedRig(t)
	if got := r.scim(directoryToken, "GET", `/Users?filter=userName%20eq%20%22alice%40example.com%22&startIndex=1&count=100`, "", 200); got["totalResults"] != 0.0 {
		t.Errorf("%v", got)
	}
	user := `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"alice@example.com","name":{"givenName":"Alice","familyName":"Engineer"},
		"emails":[{"primary":true,"value":"alice@example.com","type":"work"}],"displayName":"Alice","locale":"en-US","externalId":"alice","groups":[],"password":"1mz050nq","active":true}`
	person := r.scim(directoryToken, "POST", "/Users", user, 201)["id"].(string)
	r.scim(directoryToken, "POST", "/Users", user, 409)
	for _, filter := range []string{`userName eq "ALICE@example.com"`, `externalId eq "alice"`, `id eq "` + person + `"`} {
		got := r.scim(directoryToken, "GET", "/Users?filter="+strings.NewReplacer(" ", "%20", `"`, "%22").Replace(filter), "", 200)
		if got["totalResults"] != 1.0 || got["Resources"].([]any)[0].(map[string]any)["id"] != person {
			t.Errorf("%s: %v", filter, got)
		}
	}
	group := r.scim(directoryToken, "POST", "/Groups", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"leads","members":[{"value":"`+person+`","display":"alice@example.com"}]}`, 201)["id"].(string)
	who, err := r.signInProvisioned(t)
	if err != nil || !slices.Equal(who.Groups, []string{"leads"}) {
		t.Fatalf("%v, %v", who.Groups, err)
	}
	r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+`{"op":"replace","value":{"id":"`+group+`","displayName":"leads"}}]}`, 200)
	r.scim(directoryToken, "PUT", "/Groups/"+group, `{"displayName":"leads","members":[{"value":"p-nobody"}]}`, 200)
	if got := must(r.Current(t.Context(), who))(t).Groups; len(got) != 0 {
		t.Errorf("replaced: %v", got)
	}
	r.scim(directoryToken, "PATCH", "/Users/"+person, patchOp+`{"op":"replace","value":{"active":false}}]}`, 200)
	refused(t, r.Standing(t.Context(), who), refusal.IdentityDisabled)

	// Paging.
	for _, name := range []string{"b", "c", "d"} {
		r.scim(directoryToken, "POST", "/Users", `{"userName":"`+name+`"}`, 201)
	}
	got := r.scim(directoryToken, "GET", "/Users?startIndex=3&count=1", "", 200)
	if got["totalResults"] != 4.0 || got["startIndex"] != 3.0 || len(got["Resources"].([]any)) != 1 || got["Resources"].([]any)[0].(map[string]any)["userName"] != "c" {
		t.Errorf("%v", got)
	}
	for _, path := range []string{"/ServiceProviderConfig", "/ResourceTypes", "/ResourceTypes/User", "/Schemas", "/Schemas/urn:ietf:params:scim:schemas:core:2.0:Group"} {
		r.scim(directoryToken, "GET", path, "", 200)
	}
	// No password is kept, nor a token.
	err = filepath.WalkDir(r.cfg.State, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "1mz050nq") || strings.Contains(string(data), directoryToken) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSCIMVersions: what was read and has been changed since by somebody else is neither overwritten nor deleted by who says which version
// they mean, and need not be sent again to who has it.
func TestSCIMVersions(t *testing.T) {
	r := provisionedRig(t)
	person, group := r.entra()
	for path, change := range map[string]string{
		"/Users/" + person: `{"op":"replace","path":"displayName","value":"Alice E."}`,
		"/Groups/" + group: `{"op":"add","path":"members","value":[{"value":"` + person + `"}]}`,
	} {
		patch := func(condition, version string, want int) (map[string]any, string) {
			return r.scimIf(directoryToken, "PATCH", path, patchOp+change+`]}`, condition, version, want)
		}
		shown, first := r.scimIf(directoryToken, "GET", path, "", "", "", 200)
		if meta := shown["meta"].(map[string]any); first == "" || meta["version"] != first {
			t.Fatalf("%s: %q and %v", path, first, meta)
		}
		r.scimIf(directoryToken, "GET", path, "", "If-None-Match", first, 304)
		r.scimIf(directoryToken, "GET", path, "", "If-None-Match", `W/"x", `+first, 304)
		r.scimIf(directoryToken, "GET", path, "", "If-None-Match", `W/"x"`, 200)
		patch("If-Match", `W/"x"`, 412)
		_, second := patch("If-Match", first, 200)
		if _, same := r.scimIf(directoryToken, "GET", path, "", "", "", 200); second == first || same != second {
			t.Errorf("%s: %s, then %s, read as %s", path, first, second, same)
		}
		r.scimIf(directoryToken, "GET", path, "", "If-None-Match", first, 200)
		put := `{"userName":"other","externalId":"alice","displayName":"other"}`
		patch("If-Match", first, 412)
		r.scimIf(directoryToken, "PUT", path, put, "If-Match", first, 412)
		r.scimIf(directoryToken, "DELETE", path, "", "If-Match", first, 412)
		if _, same := r.scimIf(directoryToken, "GET", path, "", "", "", 200); same != second {
			t.Errorf("%s was changed", path)
		}
		_, third := r.scimIf(directoryToken, "PUT", path, put, "If-Match", "*", 200)
		r.scimIf(directoryToken, "DELETE", path, "", "If-Match", strings.TrimPrefix(third, "W/"), 204)
	}
}

// TestSCIMAbuse: what has no token, another provider's or no bounds gets nothing.
func TestSCIMAbuse(t *testing.T) {
	r := provisionedRig(t)
	person, group := r.entra()
	for _, token := range []string{"", "x", directoryToken + "x", directoryToken[:len(directoryToken)-1], strings.Repeat("a", 5000)} {
		r.scim(token, "GET", "/Users", "", 401)
		r.scim(token, "DELETE", "/Users/"+person, "", 401)
	}
	// Another provider's token neither sees, changes nor names anybody, also where it knows the id.
	if got := r.scim(otherToken, "GET", "/Users", "", 200); got["totalResults"] != 0.0 {
		t.Errorf("%v", got)
	}
	for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
		body := patchOp + `{"op":"replace","path":"active","value":false}]}`
		if method == "PUT" {
			body = `{"userName":"stolen","displayName":"stolen"}`
		}
		r.scim(otherToken, method, "/Users/"+person, body, 404)
		r.scim(otherToken, method, "/Groups/"+group, strings.Replace(body, `"active"`, `"displayName"`, 1), 404)
	}
	who, err := r.signInProvisioned(t)
	if err != nil {
		t.Fatal(err)
	}
	theirs := r.scim(otherToken, "POST", "/Groups", `{"displayName":"leads","members":[{"value":"`+person+`"}]}`, 201)
	if len(theirs["members"].([]any)) != 0 || len(must(r.Current(t.Context(), who))(t).Groups) != 0 {
		t.Errorf("another provider's group has her: %v", theirs)
	}
	// The same name there is somebody else, and only the groups count that the configuration lets that provider name.
	them := r.scim(otherToken, "POST", "/Users", `{"userName":"alice","externalId":"alice","active":"False"}`, 201)["id"].(string)
	if err := r.Standing(t.Context(), who); err != nil {
		t.Errorf("closed by another provider: %v", err)
	}
	r.scim(otherToken, "PATCH", "/Users/"+them, patchOp+`{"op":"replace","path":"active","value":true}]}`, 200)
	for _, name := range []string{"engineers", "contractors"} {
		r.scim(otherToken, "POST", "/Groups", `{"displayName":"`+name+`","members":[{"value":"`+them+`"}]}`, 201)
	}
	partner := Identity{Issuer: "https://partner.example", Subject: "4711", Kind: Human, match: "Alice"}
	if partner, err = r.SignIn(t.Context(), partner, ""); err != nil || !slices.Equal(partner.Groups, []string{"contractors"}) {
		t.Errorf("%v, %v", partner.Groups, err)
	}

	r.scim(directoryToken, "POST", "/Users", `{"userName":"`+strings.Repeat("x", 2<<20)+`"}`, 413)
	for _, bad := range []string{
		strings.Repeat("%28", 1000) + "userName%20eq%20%22a%22", strings.Repeat("not%20%28", 30) + "userName%20pr" + strings.Repeat("%29", 30),
		"userName%20eq%20%22a%22%20or%20active%20eq%20true", "userName%20sw%20%22a%22", "password%20eq%20%22a%22", "userName%20eq%20%22a",
	} {
		r.scim(directoryToken, "GET", "/Users?filter="+bad, "", 400)
	}
	for _, bad := range []string{
		`{"op":"replace","path":"members[value eq \"` + person + `\"]","value":[]}`, `{"op":"remove"}`, `{"op":"replace","path":"` + strings.Repeat("a[", 300) + `"}`,
		`{"op":"move","path":"members"}`, `{"op":"add","path":"members","value":"p"}`, `{"op":"add","path":"members","value":null}`,
		`{"op":"replace","path":"displayName","value":""}`, `{"op":"replace","path":"displayName","value":"a\u0000b"}`, `{"op":"remove","path":"members[value eq \"x\"].value"}`,
	} {
		r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+bad+`]}`, 400)
	}
	r.scim(directoryToken, "POST", "/Users", strings.Repeat("[", 20_000), 400)
	r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+strings.Repeat(`{"op":"remove","path":"members"},`, 1001)+`{"op":"remove","path":"members"}]}`, 400)

	// A token that two providers have proves neither.
	t.Setenv("AUTHN_TEST_SCIM", directoryToken)
	r.scim(directoryToken, "GET", "/Users", "", 401)
	t.Setenv("AUTHN_TEST_SCIM", "short")
	r.scim("short", "GET", "/Users", "", 401)
}

// TestDirectoryKnowsByAClaim: who signs in at the provider is who its directory means by the claim that the configuration names, from the
// ID token or userinfo; an address that the provider calls unverified is nobody's.
func TestDirectoryKnowsByAClaim(t *testing.T) {
	for _, tt := range []struct {
		claim, value string
		claims, info map[string]any
		known        bool
	}{
		{"", "alice", nil, nil, true},
		{"oid", "o-1", map[string]any{"oid": "o-1"}, nil, true},
		{"oid", "o-1", nil, map[string]any{"oid": "o-1"}, true},
		{"oid", "o-1", map[string]any{"oid": "o-2"}, nil, false},
		{"oid", "alice", nil, nil, false},
		{"email", "alice@example.com", nil, nil, true},
		{"email", "alice@example.com", map[string]any{"email_verified": false}, nil, false},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			r := provisionedRig(t, func(c *configs.Config) {
				c.Providers = nil
				c.Provider.SCIM.Claim, c.Provider.SCIM.AdmitUnknown = tt.claim, true
			})
			r.company.set(func(c *company) {
				maps.Copy(c.claims["alice"], tt.claims)
				c.userinfo = func(info map[string]any) { maps.Copy(info, tt.info) }
			})
			person := r.scim(directoryToken, "POST", "/Users", `{"userName":"a","externalId":"`+tt.value+`"}`, 201)["id"].(string)
			r.scim(directoryToken, "POST", "/Groups", `{"displayName":"leads","members":[{"value":"`+person+`"}]}`, 201)
			_, token := r.signedIn("alice")
			want := []string{"engineers", "oncall"}
			if tt.known {
				want = append(want, "leads")
			}
			if got := r.groups(token.AccessToken); !slices.Equal(got, want) {
				t.Errorf("%v, not %v", got, want)
			}
		})
	}
}

// TestDirectoryIsForgotten: a provider that provisions no more gives no groups and closes nobody; one that begins to closes whom it
// does not know, unless they are admitted.
func TestDirectoryIsForgotten(t *testing.T) {
	r := provisionedRig(t)
	person, group := r.entra()
	r.scim(directoryToken, "PATCH", "/Groups/"+group, patchOp+`{"op":"Add","path":"members","value":[{"value":"`+person+`"}]}]}`, 200)
	who, err := r.signInProvisioned(t)
	if err != nil {
		t.Fatal(err)
	}
	with := r.cfg.Provider.SCIM
	stranger := Identity{Issuer: r.company.URL, Subject: "zoe", Kind: Human, Groups: []string{}}
	r.cfg.Provider.SCIM = nil
	if err := r.openDirectories(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := must(r.Current(t.Context(), who))(t).Groups; len(got) != 0 {
		t.Errorf("%v", got)
	}
	if stranger, err = r.SignIn(t.Context(), stranger, ""); err != nil {
		t.Fatal(err)
	}
	r.cfg.Provider.SCIM = &configs.SCIM{Token: with.Token, AdmitUnknown: true}
	if err := r.openDirectories(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := must(r.Current(t.Context(), who))(t).Groups; !slices.Equal(got, []string{"leads"}) {
		t.Errorf("%v", got)
	}
	if err := r.Standing(t.Context(), stranger); err != nil {
		t.Errorf("admitted: %v", err)
	}
	r.scim(directoryToken, "DELETE", "/Users/"+person, "", 204)
	if r.Standing(t.Context(), who) == nil {
		t.Error("whose account was deleted is still signed in")
	}
	r.cfg.Provider.SCIM = with
	if err := r.openDirectories(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, r.Standing(t.Context(), stranger), refusal.IdentityDisabled)
}
