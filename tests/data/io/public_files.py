"""Files in the shape of public data sets, with invented content: what each is called, its options, what it comes to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

EVENTS = [
    (u, 10 + (3 * u + s) % 7, 1 + (u + s) % 5, 1_300_000_000 + 86_400 * u + 60 * s)
    for u in range(1, 6)
    for s in range(4)
]
"""User, item, rating, second: 5 users, 7 items, 20 events, in the order of users and times."""


@dataclass(frozen=True)
class Case:
    """A data set's file.

    `refused` is a part of the sentence that says what to type, where it is not read as it is; `then` are DataConfig's
    options with which it is read. `ties` says that its times are too coarse to tell a user's events apart. `item` is
    the number of an event's item, by user, item and rating; `hashes` says that the file has it in hexadecimal.
    """

    file: str
    content: Callable[[], str | bytes]
    refused: str = ""
    then: dict[str, Any] = field(default_factory=dict)
    times: bool = True
    warned: str = ""
    reads: bool = True
    ties: bool = False
    item: Callable[[int, int, int], int] = lambda user, item, rating: item
    hashes: bool = False


def rows(form: Callable[..., str], header: str = "", end: str = "\n") -> Callable[[], str]:
    """A line an event, below a header."""
    return lambda: (header + "\n" if header else "") + "".join(form(*event) + end for event in EVENTS)


def at(second: int, form: str) -> str:
    return datetime.fromtimestamp(second, timezone.utc).strftime(form)


def iso(second: int) -> str:
    return at(second, "%Y-%m-%dT%H:%M:%SZ")


def month_first(second: int) -> str:
    when = datetime.fromtimestamp(second, timezone.utc)
    return f"{when.month}/{when.day}/{when.year} {when.hour}:{when.minute:02d}"


def lines(form: Callable[..., dict[str, Any]], write: Callable[[Any], str] = json.dumps) -> Callable[[], str]:
    return lambda: "".join(write(form(*event)) + "\n" for event in EVENTS)


def packed(content: Callable[[], str]) -> Callable[[], bytes]:
    return lambda: gzip.compress(content().encode())


def latin(content: Callable[[], str]) -> Callable[[], bytes]:
    return lambda: content().encode("latin-1")


def otto() -> str:
    sessions: dict[int, list[dict[str, Any]]] = {}
    for user, item, _, second in EVENTS:
        sessions.setdefault(user, []).append({"aid": item, "ts": 1000 * second, "type": "clicks"})
    return "".join(json.dumps({"session": user, "events": events}) + "\n" for user, events in sessions.items())


def steam_library() -> str:
    users: dict[int, list[dict[str, Any]]] = {}
    for user, item, *_ in EVENTS:
        users.setdefault(user, []).append({"item_id": str(item), "item_name": "it's", "playtime_forever": 6})
    return "".join(f"{ {'user_id': f'u{user}', 'items_count': 4, 'items': items}!r}\n" for user, items in users.items())


def t4rec() -> bytes:
    users = {user: [(item, second) for other, item, _, second in EVENTS if other == user] for user in range(1, 6)}
    lists = {
        "session_id": list(users),
        "item_id-list": [[item for item, _ in events] for events in users.values()],
        "timestamp-list": [[second for _, second in events] for events in users.values()],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(lists), sink)
    return sink.getvalue().to_pybytes()


def netflix() -> str:
    films: dict[int, list[str]] = {}
    for user, item, rating, second in EVENTS:
        films.setdefault(item, []).append(f"{user},{rating},{at(second, '%Y-%m-%d')}")
    return "".join(f"{film}:\n" + "\n".join(found) + "\n" for film, found in films.items())


BY_NUMBER = "name its columns by number, from 0"
FORM = "--data.time_format"
HASH = "{:040x}".format

CASES = {
    "MovieLens 100K": Case("u.data", rows(lambda u, i, r, t: f"{u}\t{i}\t{r}\t{t}")),
    "MovieLens 1M, 10M": Case("ratings.dat", rows(lambda u, i, r, t: f"{u}::{i}::{r}::{t}")),
    "MovieLens 20M, 25M, 32M": Case(
        "ratings.csv", rows(lambda u, i, r, t: f"{u},{i},{r}.5,{t}", "userId,movieId,rating,timestamp")
    ),
    "MovieTweetings": Case("ratings.dat", rows(lambda u, i, r, t: f"{u}::{i:07d}::{r}::{t}")),
    "HetRec 2011 MovieLens": Case(
        "user_ratedmovies-timestamps.dat",
        rows(lambda u, i, r, t: f"{u}\t{i}\t{r}\t{t}000", "userID\tmovieID\trating\ttimestamp"),
    ),
    "HetRec 2011 Last.fm": Case(
        "user_artists.dat", rows(lambda u, i, r, t: f"{u}\t{i}\t{r}", "userID\tartistID\tweight"),
        times=False, warned="no column of times",
    ),
    "Amazon ratings 2014 (user first)": Case(
        "ratings_Beauty.csv", rows(lambda u, i, r, t: f"A{u}X,B{i:09d},{r}.0,{t}"), BY_NUMBER,
        {"user": "0", "item": "1", "rating": "2", "time": "3"},
    ),
    "Amazon ratings 2018 (item first)": Case(
        "All_Beauty.csv", rows(lambda u, i, r, t: f"B{i:09d},A{u}X,{r}.0,{t}"), BY_NUMBER,
        {"user": "1", "item": "0", "time": "3"},
    ),
    "Amazon reviews 2014, 2018": Case(
        "reviews_Beauty_5.json.gz",
        packed(lines(lambda u, i, r, t: {
            "reviewerID": f"A{u}", "asin": f"B{i}", "reviewerName": "N\u00e9",
            "helpful": [0, 1], "reviewText": "a, \"b\"",
            "overall": float(r), "summary": "", "unixReviewTime": t, "reviewTime": at(t, "%m %d, %Y")})),
    ),
    "Amazon reviews 2023": Case(
        "All_Beauty.jsonl.gz",
        packed(lines(lambda u, i, r, t: {
            "rating": float(r), "title": "t", "text": "x", "images": [], "asin": f"B{i}", "parent_asin": f"B{i}",
            "user_id": f"AE{u}", "timestamp": 1000 * t, "helpful_vote": 0, "verified_purchase": True})),
    ),
    "Amazon 2023 ratings": Case(
        "All_Beauty.csv.gz",
        packed(rows(lambda u, i, r, t: f"AE{u},B{i},{r}.0,{t}000", "user_id,parent_asin,rating,timestamp")),
    ),
    "Yelp": Case(
        "yelp_academic_dataset_review.json",
        lines(lambda u, i, r, t: {
            "review_id": f"r{t}", "user_id": f"u{u}", "business_id": f"b{i}", "stars": float(r), "text": "x",
            "date": at(t, "%Y-%m-%d %H:%M:%S")}),
    ),
    "Steam reviews (Python's dicts)": Case(
        "steam_reviews.json.gz",
        packed(lines(lambda u, i, r, t: {
            "user_id": f"n\u00e4{u}", "product_id": str(i), "hours": 0.1, "date": at(t, "%Y-%m-%d"),
            "found": False}, repr)),
        times=False,
    ),
    "Steam libraries": Case("australian_users_items.json", steam_library, times=False, warned="no column of times"),
    "OTTO": Case("otto-recsys-train.jsonl", otto),
    "Goodreads interactions": Case(
        "goodreads_interactions_dedup.json.gz",
        packed(lines(lambda u, i, r, t: {
            "user_id": f"u{u}", "book_id": str(i), "is_read": True, "rating": r,
            "date_added": at(t, "%a %b %d %H:%M:%S +0000 %Y"), "read_at": ""})),
        FORM, {"time_format": "%a %b %d %H:%M:%S %z %Y"},
    ),
    "Diginetica": Case(
        "train-item-views.csv",
        rows(lambda u, i, r, t: f"{u};{'NA' if u > 1 else 7};{i};{t - 1_300_000_000};{at(t, '%Y-%m-%d')}",
             "session_id;user_id;item_id;timeframe;eventdate"),
        "take the sessions as users by --data.user session_id", {"user": "session_id", "time": "timeframe"},
    ),
    "Tmall (IJCAI-15)": Case(
        "user_log_format1.csv",
        rows(lambda u, i, r, t: f"{u},{i},8,9,,{at(t, '%m%d')},0",
             "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type"),
        times=False,
    ),
    "Taobao UserBehavior": Case(
        "UserBehavior.csv", rows(lambda u, i, r, t: f"{u},{i},5,pv,{t}"), BY_NUMBER,
        {"user": "0", "item": "1", "time": "4"},
    ),
    "REES46": Case(
        "2019-Oct.csv.gz",
        packed(rows(lambda u, i, r, t: f"{at(t, '%Y-%m-%d %H:%M:%S UTC')},view,{i},2,a.b,,1.5,{u},s-{u}",
                    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session")),
    ),
    "Gowalla check-ins": Case(
        "loc-gowalla_totalCheckins.txt", rows(lambda u, i, r, t: f"{u}\t{iso(t)}\t30.2\t-97.7\t{i}"),
        "--data.user 0 --data.item 4 --data.time 1", {"user": "0", "item": "4", "time": "1"},
    ),
    "Brightkite check-ins": Case(
        "loc-brightkite_totalCheckins.txt.gz",
        packed(rows(lambda u, i, r, t: f"{u}\t{iso(t)}\t39.7\t-104.9\t{i:032x}")),
        "--data.user 0 --data.item 4 --data.time 1", {"user": "0", "item": "4", "time": "1"}, hashes=True,
    ),
    "Foursquare NYC, TKY": Case(
        "dataset_TSMC2014_NYC.txt",
        latin(rows(lambda u, i, r, t:
                   f"{u}\tv{i}\tc\tCaf\u00e9\t40.7\t-74.0\t-240\t{at(t, '%a %b %d %H:%M:%S +0000 %Y')}")),
        "--data.encoding latin-1",
        {"user": "0", "item": "1", "time": "7", "encoding": "latin-1", "time_format": "%a %b %d %H:%M:%S %z %Y"},
    ),
    "Last.fm 360K": Case(
        "usersha1-artmbid-artname-plays.tsv",
        rows(lambda u, i, r, t: f"{HASH(u)}\t{i:08x}-aa\t\"weird\" al\t{r}"), BY_NUMBER,
        {"user": "0", "item": "1"}, times=False, warned="no column of times", hashes=True,
    ),
    "Last.fm 1K": Case(
        "userid-timestamp-artid-artname-traid-traname.tsv",
        rows(lambda u, i, r, t: f"user_{u:06d}\t{iso(t)}\t{'a' * 8}\tDeep \"Dish\t{i:08x}-b\tF"), BY_NUMBER,
        {"user": "0", "item": "4", "time": "1"}, hashes=True,
    ),
    "UCI Online Retail": Case(
        "OnlineRetail.csv",
        lambda: (rows(lambda u, i, r, t: f"5{u},{i}A,\"\u00a3 box\",{r},{month_first(t)},2.55,1785{u},United Kingdom",
                      "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country")()
                 + "9,9A,x,1,12/1/2010 8:26,1.0,,France\n").encode("latin-1"),
        "data.on_bad_row",
        {"time_format": "%m/%d/%Y %H:%M", "on_bad_row": "drop"}, warned="dropped 1 of 21 rows",
    ),
    "Yoochoose": Case(
        "yoochoose-clicks.dat", rows(lambda u, i, r, t: f"{u},{at(t, '%Y-%m-%dT%H:%M:%S.277Z')},{i},0"),
        "--data.user 0 --data.item 2 --data.time 1", {"user": "0", "item": "2", "time": "1"},
    ),
    "Book-Crossing": Case(
        "BX-Book-Ratings.csv",
        latin(rows(lambda u, i, r, t: f'"{u}";"0{i}\u00e9X";"{r}"', '"User-ID";"ISBN";"Book-Rating"')),
        "--data.encoding", {"encoding": "latin-1"}, times=False,
    ),
    "Epinions": Case(
        "ratings_data.txt", rows(lambda u, i, r, t: f"{u} {i + 100 * r * u} {r}"),
        "name its columns by number", {"user": "0", "item": "1"}, times=False, warned="no column of times",
        item=lambda u, i, r: i + 100 * r * u,
    ),
    "Jester": Case(
        "jester-data-1.csv", lambda: "".join(",".join(["74", *(["-7.82"] * 100)]) + "\n" for _ in range(5)),
        "write it with one event a line", reads=False,
    ),
    "MIND": Case(
        "behaviors.tsv",
        rows(lambda u, i, r, t: f"{t}\tU{u}\t{at(t, '%m/%d/%Y %I:%M:%S %p')}\tN1 N2\tN{i}-1 N99-0"),
        "events.tsv", reads=False,
    ),
    "Netflix prize": Case("combined_data_1.txt", netflix, "awk -F,", reads=False),
    "RetailRocket": Case(
        "events.csv", rows(lambda u, i, r, t: f"{t}000,{u},view,{i},", "timestamp,visitorid,event,itemid,transactionid")
    ),
    "KuaiRec": Case(
        "big_matrix.csv",
        rows(lambda u, i, r, t: f"{u},{i},13838,10867,{at(t, '%Y-%m-%d %H:%M:%S.314')},{at(t, '%Y%m%d')},{t}.314,1.27",
             "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio"),
    ),
    "Dunnhumby": Case(
        "transaction_data.csv",
        rows(lambda u, i, r, t: f"{u},2{t},1,{i},1,1.39,364,-0.6,1631,1,0,0",
             "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,RETAIL_DISC,TRANS_TIME,WEEK_NO,A,B"),
        times=False, warned="no column of times",
    ),
    "RecBole's atomic files": Case(
        "ml-100k.inter",
        rows(lambda u, i, r, t: f"{u}\t{i}\t{r}\t{t}", "user_id:token\titem_id:token\trating:float\ttimestamp:float"),
    ),
    "RecBole's sequences": Case(
        "sequences.inter",
        lambda: "user_id:token\titem_id_list:token_seq\n"
        + "".join(f"{u}\t{' '.join(str(e[1]) for e in EVENTS if e[0] == u)}\n" for u in range(1, 6)),
        times=False,
    ),
    "Transformers4Rec": Case("train.parquet", t4rec, times=True),
    "Twitch": Case(
        "100k_a.csv", rows(lambda u, i, r, t: f"{u},34347669376,{i},{t // 600},{t // 600 + 1}"), BY_NUMBER,
        {"user": "0", "item": "2", "time": "3"}, ties=True,
    ),
    "H&M": Case(
        "transactions_train.csv",
        rows(lambda u, i, r, t: f"{at(t, '%Y-%m-%d')},{HASH(u)},{i:010d},0.05,2",
             "t_dat,customer_id,article_id,price,sales_channel_id"),
        times=False, warned="no column of times",
    ),
    "Globo.com": Case(
        "clicks_hour_000.csv",
        rows(lambda u, i, r, t: f"{u},15{u},{t}000,2,{i},{t}000,4,1,17,1,25,2",
             "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
             "click_deviceGroup,click_os,click_country,click_region,click_referrer_type"),
        "name one by the option data.item", {"item": "click_article_id", "time": "click_timestamp"},
    ),
    "Criteo attribution": Case(
        "criteo_attribution_dataset.tsv.gz",
        packed(rows(lambda u, i, r, t: f"{t - 1_300_000_000}\t{u}\t{i}\t0\t-1",
                    "timestamp\tuid\tcampaign\tconversion\tconversion_timestamp")),
        "name one by the option data.item", {"item": "campaign"},
    ),
    "S3-Rec, FMLP-Rec": Case(
        "Beauty.txt", lambda: "".join(f"{u} {' '.join(str(e[1]) for e in EVENTS if e[0] == u)}\n" for u in range(1, 6)),
        times=False,
    ),
    "SASRec's pairs": Case("Beauty.txt", rows(lambda u, i, r, t: f"{u} {i}"), times=False),
}  # fmt: skip
