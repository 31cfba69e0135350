"""Every word and operator that may stand outside of quotes in what is run for an extension. Data only.

An allow-list: Postgres and its extensions have thousands of functions, some of which run statements given as text, read
files, wait, signal or write settings. What is not here is refused, also when it would be harmless. Left out on purpose:
everything that takes a statement, a file, a setting or a time to sleep; `nextval` and its like, which take a name as
text; `repeat` and `lpad`, which make a gigabyte of one byte; `user`, which reads like a column.
"""

from __future__ import annotations


def listed(text: str) -> frozenset[str]:
    """The words of a text that is laid out for reading."""
    return frozenset(text.split())


OPERATORS = listed("""
    + - * / % ^ = <> != < > <= >= || ~ ~* !~ !~* ~~ ~~* !~~ !~~* & | # << >>
    -> ->> #> #>> #- @> <@ ? ?| ?& && @@ @? <-> -|- &< &> ^@ |/ ||/ =>
""")

QUERY_KEYWORDS = listed("""
    select from where and or not in is null true false as on using join inner left right full outer cross natural
    lateral group by having order asc desc nulls first last limit offset fetch next row rows only with ties union all
    except intersect distinct case when then else end between symmetric like ilike similar to escape exists any some
    array cast interval at time zone values insert into default update set delete returning conflict do nothing
    constraint for share key no nowait skip locked of recursive materialized window over partition range groups
    unbounded preceding following current exclude others filter within ordinality extract position substring overlay
    placing trim both leading trailing collate grouping sets rollup cube variadic
    current_date current_time current_timestamp localtime localtimestamp current_user session_user overlaps
""")

FIELDS = listed("""
    epoch century day days decade dow doy hour hours isodow isoyear julian microsecond microseconds millennium
    millisecond milliseconds minute minutes month months quarter second seconds timezone timezone_hour timezone_minute
    week weeks year years
""")

MIGRATION_KEYWORDS = listed("""
    create table if view sequence index unique unlogged drop cascade restrict alter add column rename type primary
    foreign references check generated always identity stored action deferrable initially deferred immediate match
    simple include comment increment minvalue maxvalue start cache cycle replace data including excluding defaults
    comments indexes btree gin gist brin spgist hash enum
""")

TYPES = listed("""
    int integer smallint bigint int2 int4 int8 text varchar char character varying boolean bool numeric decimal real
    float double precision float4 float8 date timestamp timestamptz time timetz interval json jsonb jsonpath uuid bytea
    inet cidr macaddr bit varbit tsvector tsquery int4range int8range numrange tsrange tstzrange daterange
    int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange without zone with
    serial bigserial smallserial point box circle line lseg path polygon
""")

FUNCTIONS = listed("""
    count sum avg min max bool_and bool_or every bit_and bit_or string_agg array_agg any_value stddev stddev_pop
    stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope regr_intercept regr_r2 mode
    percentile_cont percentile_disc json_agg jsonb_agg json_object_agg jsonb_object_agg range_agg
    row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
    coalesce nullif greatest least num_nulls num_nonnulls
    abs ceil ceiling floor round trunc sign sqrt cbrt exp ln log log10 power mod div gcd lcm degrees radians pi random
    sin cos tan asin acos atan atan2 sinh cosh tanh width_bucket scale min_scale trim_scale factorial
    length char_length character_length octet_length bit_length lower upper initcap btrim ltrim rtrim trim substr
    substring left right replace translate reverse position strpos split_part concat concat_ws starts_with ascii chr
    overlay string_to_array string_to_table array_to_string quote_literal quote_ident quote_nullable normalize
    regexp_replace regexp_match regexp_matches regexp_count regexp_instr regexp_like regexp_substr
    regexp_split_to_array regexp_split_to_table md5 sha224 sha256 sha384 sha512 encode decode to_hex convert_from
    convert_to
    now clock_timestamp statement_timestamp transaction_timestamp date_trunc date_part date_bin extract age isfinite
    make_date make_time make_timestamp make_timestamptz make_interval justify_days justify_hours justify_interval
    to_char to_date to_number to_timestamp
    gen_random_uuid uuidv4 uuidv7
    array_append array_prepend array_cat array_dims array_length array_lower array_ndims array_position array_positions
    array_remove array_replace array_upper cardinality trim_array unnest generate_series generate_subscripts array
    json_build_array json_build_object jsonb_build_array jsonb_build_object json_object jsonb_object to_json to_jsonb
    row_to_json array_to_json json_array_length jsonb_array_length json_array_elements jsonb_array_elements
    json_array_elements_text jsonb_array_elements_text json_each jsonb_each json_each_text jsonb_each_text
    json_object_keys jsonb_object_keys json_extract_path jsonb_extract_path json_extract_path_text
    jsonb_extract_path_text json_typeof jsonb_typeof json_strip_nulls jsonb_strip_nulls jsonb_set jsonb_set_lax
    jsonb_insert jsonb_pretty jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
    jsonb_path_query_first json_to_record jsonb_to_record json_to_recordset jsonb_to_recordset
    isempty lower_inc lower_inf upper_inc upper_inf range_merge int4range int8range numrange tsrange tstzrange daterange
    to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline
    setweight strip numnode querytree
    host masklen netmask network broadcast family set_masklen
    grouping row all
""")

NOISE = TYPES | listed("as inner outer cast asc into set array constraint nulls first last column data row rows")
"""Words that come, go or change when a statement is printed, and nothing of its meaning with them."""

SAME = {"!=": ("<>",), "!~": ("not", "~"), "!~*": ("not", "~*"), "~~": ("like",), "~~*": ("ilike",)}
"""What some operators become."""
