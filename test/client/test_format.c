/* SPDX-License-Identifier: BSD-3-Clause */
/* test_format.c - what the command reads from operands and shows to people */
#include <criterion/criterion.h>

#include "client/cmd/progress.c"
#include "client/cmd/util.c"

Test(parse, sizes)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t bytes;
	} cases[] = {
		{ "0", true, 0 },
		{ "4096", true, 4096 },
		{ "64K", true, 65536 },
		{ "1g", true, 1ull << 30 },
		{ "1.5M", true, 3 << 19 },
		{ "2GiB", true, 2ull << 30 },
		{ "15E", true, 15ull << 60 },
		{ "16E", false, 0 },
		{ "", false, 0 },
		{ "K", false, 0 },
		{ "-1", false, 0 },
		{ "1X", false, 0 },
		{ "1KK", false, 0 },
		{ "18446744073709551616", false, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t got = 77;

		cr_expect_eq(parse_size(cases[i].text, &got), cases[i].ok, "%s", cases[i].text);
		cr_expect_eq(got, cases[i].ok ? cases[i].bytes : 77, "%s", cases[i].text);
	}
}

Test(parse, modes)
{
	static const struct {
		const char *text;
		uint32_t from;
		bool dir;
		bool ok;
		uint32_t to;
	} cases[] = {
		{ "644", 0, false, true, 0644 },
		{ "7777", 0, false, true, 07777 },
		{ "10000", 0, false, false, 0 },
		{ "8", 0, false, false, 0 },
		{ "u+x", 0644, false, true, 0744 },
		{ "go-rwx", 0777, false, true, 0700 },
		{ "a=r", 0777, false, true, 0444 },
		{ "+x", 0600, false, true, 0711 },
		{ "u=rw,go=r", 0, false, true, 0644 },
		{ "a+X", 0600, false, true, 0600 },
		{ "a+X", 0600, true, true, 0711 },
		{ "u+s", 0755, false, true, 04755 },
		{ "g-s", 06755, false, true, 04755 },
		{ "+t", 0777, true, true, 01777 },
		{ "u", 0, false, false, 0 },
		{ "u+q", 0, false, false, 0 },
		{ "", 0, false, false, 0 },
		{ "u+x,", 0, false, false, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint32_t got = 0;

		cr_expect_eq(parse_mode(cases[i].text, cases[i].from, cases[i].dir, &got),
		             cases[i].ok, "%s", cases[i].text);
		if (cases[i].ok)
			cr_expect_eq(got, cases[i].to, "%s of %o: %o", cases[i].text, cases[i].from,
			             got);
	}
}

Test(parse, uuid_round_trip)
{
	const char *text = "0123abcd-4567-89ef-fedc-ba9876543210";
	uint8_t uuid[16];
	char back[37];

	cr_assert(parse_uuid(text, uuid));
	format_uuid(uuid, back);
	cr_expect_str_eq(back, text);
	cr_expect_not(parse_uuid("0123abcd-4567-89ef-fedc-ba987654321", uuid));
	cr_expect_not(parse_uuid("0123abcd-4567-89ef-fedcxba9876543210", uuid));
	cr_expect_not(parse_uuid("0123abcg-4567-89ef-fedc-ba9876543210", uuid));
}

Test(format, sizes)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0" },       { 1023, "1023" },    { 1024, "1.0K" },       { 1536, "1.5K" },
		{ 10240, "10K" }, { 1048575, "1.0M" }, { 1ull << 30, "1.0G" }, { UINT64_MAX, "16E" }
	};
	char buf[16];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		format_size(cases[i].bytes, buf);
		cr_expect_str_eq(buf, cases[i].text, "%s", buf);
	}
}

Test(format, modes)
{
	char buf[11];

	format_mode(BERTH_DIR, 0755, buf);
	cr_expect_str_eq(buf, "drwxr-xr-x");
	format_mode(BERTH_REG, 06711, buf);
	cr_expect_str_eq(buf, "-rws--s--x");
	format_mode(BERTH_REG, 07000, buf);
	cr_expect_str_eq(buf, "---S--S--T");
	format_mode(BERTH_LNK, 0777, buf);
	cr_expect_str_eq(buf, "lrwxrwxrwx");
}

Test(format, names_for_a_terminal)
{
	char buf[64];

	escape_name(buf, "a\x1b[1m\n\xff\xc3\xa9", 9);
	cr_expect_str_eq(buf, "a\\033[1m\\012\\377\xc3\xa9");
	escape_name(buf, "\xc2\x9b", 2); /* a control character of Latin 1 */
	cr_expect_str_eq(buf, "\\302\\233");
}

Test(format, utf8)
{
	cr_expect(utf8_ok("plain", 5));
	cr_expect(utf8_ok("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9));
	cr_expect_not(utf8_ok("\xff", 1));
	cr_expect_not(utf8_ok("\xc0\xaf", 2));     /* overlong */
	cr_expect_not(utf8_ok("\xed\xa0\x80", 3)); /* surrogate */
	cr_expect_not(utf8_ok("\xe2\x82", 2));     /* cut */
}

Test(format, names_in_json)
{
	json_t *o = json_object();

	json_set_name(o, "name", "a\xff", 2);
	cr_expect_str_eq(json_string_value(json_object_get(o, "name_hex")), "61ff");
	cr_expect_str_eq(json_string_value(json_object_get(o, "name")), "a\\377");
	json_object_clear(o);
	json_set_name(o, "name", "\xc3\xa9", 2);
	cr_expect_str_eq(json_string_value(json_object_get(o, "name")), "\xc3\xa9");
	cr_expect_null(json_object_get(o, "name_hex"));
	json_decref(o);
}

Test(paths, base_names)
{
	cr_expect_str_eq(base_name("a/b"), "b");
	cr_expect_str_eq(base_name("a/b/"), "b/");
	cr_expect_str_eq(base_name("b"), "b");
	cr_expect_str_eq(base_name(""), "");
}

Test(progress, text_fits_and_tells)
{
	char buf[256];

	progress_text(buf, sizeof(buf), 50 << 20, 100 << 20, true, 1000, 80);
	cr_expect_lt(strlen(buf), 80, "%s", buf);
	cr_expect_not_null(strstr(buf, " 50%"), "%s", buf);
	cr_expect_not_null(strstr(buf, "50M/s"), "%s", buf);
	cr_expect_not_null(strstr(buf, "ETA 0:01"), "%s", buf);
	progress_text(buf, sizeof(buf), 0, 0, false, 0, 20);
	cr_expect_not_null(strstr(buf, "ETA -:--"), "%s", buf);
}
