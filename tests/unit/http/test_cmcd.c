#include "http/cmcd.h"

#include "head.h"

static struct cmcd of(const char *payload)
{
    struct cmcd c = {0};

    cmcd_add(&c, str_z(payload));
    return c;
}

#define ONLY(key) (1u << (key))

static void reads_every_key(void **state)
{
    struct cmcd c =
        of("bl=21300,br=3200,bs,cid=\"faec5fc2-ac30-11ea-bb37-0242ac130002\",d=4004,dl=18500,mtp=25400,"
           "nor=\"..%2F300kbps%2Fsegment35.m4v\",nrr=\"12323-48763\",ot=v,pr=1.08,rtp=12000,sf=d,"
           "sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\",st=v,su,tb=6000,v=1,com.example-x=\"y\"");

    (void)state;
    assert_int_equal(c.present, (1u << CMCD_KEYS) - 1);
    assert_int_equal(c.number[CMCD_BL], 21300);
    assert_int_equal(c.number[CMCD_BR], 3200);
    assert_int_equal(c.number[CMCD_BS], 1);
    assert_int_equal(c.number[CMCD_D], 4004);
    assert_int_equal(c.number[CMCD_DL], 18500);
    assert_int_equal(c.number[CMCD_MTP], 25400);
    assert_int_equal(c.number[CMCD_PR], 1080);
    assert_int_equal(c.number[CMCD_RTP], 12000);
    assert_int_equal(c.number[CMCD_SU], 1);
    assert_int_equal(c.number[CMCD_TB], 6000);
    assert_int_equal(c.number[CMCD_V], 1);
    assert_str(c.text[CMCD_CID], "faec5fc2-ac30-11ea-bb37-0242ac130002");
    assert_str(c.text[CMCD_NOR], "..%2F300kbps%2Fsegment35.m4v");
    assert_str(c.text[CMCD_NRR], "12323-48763");
    assert_str(c.text[CMCD_OT], "v");
    assert_str(c.text[CMCD_SF], "d");
    assert_str(c.text[CMCD_SID], "6e2fb550-c457-11e9-bb97-0800200c9a66");
    assert_str(c.text[CMCD_ST], "v");
}

static void leaves_out_what_is_wrong(void **state)
{
    static const char *const nothing[] = {
        "", " ", ",", "rtp", "rtp=", "rtp=-1", "rtp=\"1\"", "rtp=1.5", "rtp=4294967296",
        "rtp=99999999999999999", "RTP=1", "rtpx=1", "rtp=1,", "rtp=1;", "rtp=1 2", "rtp=(1 2)", "bs=1",
        "bs=true", "sid=abc", "sid=\"\"", "sid=\"a\\\"b\"", "sid=\"abc", "ot=\"a\"", "ot=av1", "pr=-1.5",
        "pr=1.2345", "v=1 \xff", "\xff",
        /* 65 characters */
        "cid=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        "rtp=100,sid=\"abc", /* no dictionary: all of it goes */
    };

    (void)state;
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++)
        if (of(nothing[i]).present != 0)
            fail_msg("something was found in: %s", nothing[i]);
    assert_int_equal(of("x=1,rtp=900,y").present, ONLY(CMCD_RTP));
    assert_int_equal(of("sid=abc,rtp=900").number[CMCD_RTP], 900); /* its neighbours stay */
    assert_int_equal(of("rtp=4294967295").number[CMCD_RTP], UINT32_MAX);
    assert_int_equal(of("rtp=1,rtp=2").number[CMCD_RTP], 2);
    assert_int_equal(of("bs=?0").present, ONLY(CMCD_BS));
    assert_int_equal(of("bs=?0").number[CMCD_BS], 0);
    assert_int_equal(of("pr=0").number[CMCD_PR], 0);
    assert_int_equal(of("pr=2").number[CMCD_PR], 2000);
    assert_int_equal(of("pr=0.5").number[CMCD_PR], 500);
}

static struct cmcd of_request(const char *lines, const char *query, char *room, size_t n)
{
    static struct test_head h;
    struct buf scratch = buf_of(room, n);
    struct cmcd c;

    cmcd_of_request(test_fields(&h, lines), h.text, str_z(query), &scratch, &c);
    return c;
}

static void reads_query_and_fields(void **state)
{
    char room[256];
    struct cmcd c = of_request("", "a=b&CMCD=bs%2Csid%3D%22x-1%22%2Crtp%3D15000&c", room, sizeof room);

    (void)state;
    assert_int_equal(c.present, ONLY(CMCD_BS) | ONLY(CMCD_SID) | ONLY(CMCD_RTP));
    assert_int_equal(c.number[CMCD_RTP], 15000);
    assert_str(c.text[CMCD_SID], "x-1");

    c = of_request("CMCD-Request: mtp=25400\r\ncmcd-object: br=3200,ot=a\r\nCMCD-Status: bs,rtp=15000\r\n"
                   "CMCD-Session: sid=\"x-2\"\r\nCMCD: v=1\r\nX-CMCD-Status: v=1\r\n",
                   "", room, sizeof room);
    assert_int_equal(c.present, ONLY(CMCD_MTP) | ONLY(CMCD_BR) | ONLY(CMCD_OT) | ONLY(CMCD_BS) |
                                    ONLY(CMCD_RTP) | ONLY(CMCD_SID));
    assert_str(c.text[CMCD_SID], "x-2");

    /* What is given twice is the parameter's, whose name may be escaped and has this case. */
    c = of_request("CMCD-Status: rtp=1\r\n", "%43MCD=rtp=2", room, sizeof room);
    assert_int_equal(c.number[CMCD_RTP], 2);
    assert_int_equal(of_request("", "cmcd=rtp=2&xCMCD=rtp=2&CMCD", room, sizeof room).present, 0);
    /* Bad escapes stay as they are, and are of no dictionary. */
    assert_int_equal(of_request("", "CMCD=rtp%3", room, sizeof room).present, 0);
    assert_int_equal(of_request("", "CMCD=rtp%3D1%", room, sizeof room).present, 0);
    assert_int_equal(of_request("", "CMCD=rtp%3D1%2", room, sizeof room).present, 0);
    assert_int_equal(of_request("", "CMCD=rtp%zz1", room, sizeof room).present, 0);
    assert_int_equal(of_request("", "CMCD=rtp%3d%31", room, sizeof room).number[CMCD_RTP], 1);
    /* Room for 5 bytes: what does not fit is left out whole. */
    assert_int_equal(of_request("", "CMCD=rtp%3D1", room, 5).number[CMCD_RTP], 1);
    assert_int_equal(of_request("", "CMCD=rtp%3D12", room, 5).present, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_key),
        cmocka_unit_test(leaves_out_what_is_wrong),
        cmocka_unit_test(reads_query_and_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
