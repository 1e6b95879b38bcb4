package scim

import "net/http"

// config is what a provider may expect (RFC 7643, section 5).
func (h *handler) config(w http.ResponseWriter, _ *http.Request) {
	no := map[string]any{"supported": false}
	reply(w, http.StatusOK, map[string]any{
		"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"},
		"patch":   map[string]any{"supported": true}, "filter": map[string]any{"supported": true, "maxResults": maxPage},
		"bulk":           map[string]any{"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
		"changePassword": no, "sort": no, "etag": map[string]any{"supported": true},
		"authenticationSchemes": []any{map[string]any{"type": "oauthbearertoken", "name": "Bearer token", "description": "the token of the gateway's configuration", "primary": true}},
	})
}

// resourceTypes are section 6's, schemas section 7's.
func (h *handler) resourceTypes(w http.ResponseWriter, r *http.Request) {
	kind := func(name, schema string) map[string]any {
		return map[string]any{
			"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:ResourceType"}, "id": name, "name": name, "endpoint": "/" + name + "s", "schema": schema,
			"meta": map[string]any{"resourceType": "ResourceType", "location": h.base + "/ResourceTypes/" + name},
		}
	}
	one(w, r, kind("User", schemaUser), kind("Group", schemaGroup))
}

func (h *handler) schemas(w http.ResponseWriter, r *http.Request) {
	attribute := func(name, kind string, required, exact bool, unique string, more ...map[string]any) map[string]any {
		a := map[string]any{
			"name": name, "type": kind, "multiValued": false, "required": required, "caseExact": exact,
			"mutability": "readWrite", "returned": "default", "uniqueness": unique,
		}
		if len(more) > 0 {
			a["subAttributes"] = more
		}
		return a
	}
	text := func(name string) map[string]any { return attribute(name, "string", false, false, "none") }
	many := func(a map[string]any) map[string]any {
		a["multiValued"] = true
		return a
	}
	schema := func(id, name string, attributes ...map[string]any) map[string]any {
		return map[string]any{
			"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:Schema"}, "id": id, "name": name, "attributes": attributes,
			"meta": map[string]any{"resourceType": "Schema", "location": h.base + "/Schemas/" + id},
		}
	}
	one(w, r,
		schema(schemaUser, "User", attribute("userName", "string", true, false, "server"), text("displayName"), attribute("active", "boolean", false, false, "none"),
			attribute("name", "complex", false, false, "none", text("formatted"), text("givenName"), text("familyName")),
			many(attribute("emails", "complex", false, false, "none", text("value"), text("type"), attribute("primary", "boolean", false, false, "none")))),
		schema(schemaGroup, "Group", attribute("displayName", "string", true, true, "server"),
			many(attribute("members", "complex", false, false, "none", attribute("value", "string", false, true, "none"), text("display")))))
}

// one answers with all, or with the one of them that the address names.
func one(w http.ResponseWriter, r *http.Request, all ...map[string]any) {
	id := r.PathValue("id")
	if id == "" {
		resources := make([]any, 0, len(all))
		for _, a := range all {
			resources = append(resources, a)
		}
		list(w, Query{}, len(all), resources)
		return
	}
	for _, a := range all {
		if a["id"] == id {
			reply(w, http.StatusOK, a)
			return
		}
	}
	Fail(w, http.StatusNotFound, "", "there is no such thing")
}
