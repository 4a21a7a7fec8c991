from tfconvbias.text_table import format_table

ROWS = [{"layer": "a", "size": "10"}, {"layer": "second", "size": "3"}]


def test_a_markdown_table_lines_up():
    assert format_table(ROWS) == (
        "| layer  | size |\n|--------|------|\n| a      | 10   |\n| second | 3    |"
    )


def test_a_plain_table_aligns_numbers_to_the_right():
    assert format_table(ROWS, markdown=False) == "layer   size\na         10\nsecond     3"


def test_no_rows_make_no_table():
    assert format_table([]) == ""
