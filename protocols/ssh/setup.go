package ssh

import (
	"fmt"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
)

// Setup is what an administrator of the target does once so that the gateway, and only the gateway, can log in to the
// target's accounts: files, sshd lines, and the same as Ansible tasks. authorities are the gateway's target
// authority and, while it is being rotated, its next one.
// GATEWAY stands for the address from which the gateway connects.
func Setup(target configs.Target, authorities ...xssh.PublicKey) []configs.Instruction {
	key := ""
	for _, authority := range authorities {
		key += strings.TrimSpace(string(xssh.MarshalAuthorizedKey(authority))) + " sallyport target authority\n"
	}
	const sshd = "TrustedUserCAKeys /etc/ssh/sallyport_target_ca.pub\nAuthorizedPrincipalsFile /etc/ssh/sallyport_principals/%u\n"
	parts := []configs.Instruction{{Name: "trusted_ca", Title: "/etc/ssh/sallyport_target_ca.pub (owner root, mode 0644)", Text: key}}
	var ansible strings.Builder
	fmt.Fprintf(&ansible, `- name: Trust Sallyport's target authority
  ansible.builtin.copy:
    dest: /etc/ssh/sallyport_target_ca.pub
    content: %q
    owner: root
    mode: "0644"
- name: Directory of principals
  ansible.builtin.file:
    path: /etc/ssh/sallyport_principals
    state: directory
    owner: root
    mode: "0755"
`, key)
	var only []string
	for _, a := range target.Accounts {
		file := "/etc/ssh/sallyport_principals/" + a.UserName()
		parts = append(parts, configs.Instruction{Name: "principals", Title: file + " (owner root, mode 0644)", Text: principal(a) + "\n"})
		only = append(only, a.UserName()+"@GATEWAY")
		fmt.Fprintf(&ansible, `- name: Principals of %s
  ansible.builtin.copy:
    dest: %s
    content: %q
    owner: root
    mode: "0644"
`, a.UserName(), file, principal(a)+"\n")
	}
	fmt.Fprintf(&ansible, `- name: sshd accepts Sallyport's certificates
  ansible.builtin.copy:
    dest: /etc/ssh/sshd_config.d/sallyport.conf
    content: %q
    owner: root
    mode: "0644"
    validate: /usr/sbin/sshd -t -f %%s
  notify: reload sshd
`, sshd)
	return append(parts,
		configs.Instruction{
			Name: "sshd_config", Title: "/etc/ssh/sshd_config.d/sallyport.conf; then: sshd -t && systemctl reload ssh",
			Text: sshd + "# OpenSSH 9.8 and later punish an address for failed logins, and all users share the gateway's:\n" +
				"#PerSourcePenaltyExemptList GATEWAY\n# Nobody but the gateway, once it works:\n#AllowUsers " + strings.Join(only, " ") + "\n",
		},
		configs.Instruction{Name: "ansible", Title: "The same as Ansible tasks", Text: ansible.String()},
	)
}

// principal is the one name that the gateway's certificates for the account carry.
func principal(a configs.Account) string {
	if a.Principal != "" {
		return a.Principal
	}
	return a.UserName()
}
