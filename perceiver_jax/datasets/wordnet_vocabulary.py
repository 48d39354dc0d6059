"""The words that the source `wordnet` hides: the 51st to the 2,098th most frequent of the glosses.

Frequency is the number of the 117,659 glosses of WordNet 3.0, in small letters, that hold the word,
a run of the letters a to z. The 50 before them, "a" to "two", say little about a gloss.
"""

LINES = """
can her act some has north people make between they when white body american but part other
out form time their state than new leaves water all up family long this more i have without
consisting america were through plant you over often like order after city had central group
plants another no world tree yellow where your use system old language very red light
tropical south about unit several we cause quality work various many first resembling whose
so place high shaped type surface characterized trees southern member common during if
northern been food blood containing characteristic eastern under position only found western
short great man money off english life will together head my around back black him down born
area air point line good law number war sometimes river most such before fruit set perennial
action name herbs native way process t against certain sound living disease equal th end
government property particular three green become europe hard side etc right capable wood
each sea ancient power children shrubs asia making same there woman take low european
lacking french africa force fish skin given parts military color british liquid brown move
widely substance young country do game caused material well shrub dark day give e music
spoken animals trade branch cultivated animal human edible public near ground region metal
evergreen formed marked open computer strong information put cut produced device g town blue
structure free greek related different them control land earth southeastern things degree
house acid west social period roman condition child play similar capital face placed known
away single resulting car along change political words purple including behavior thin hand
center what piece activity either source others hair church instrument soft considered
building worn years book important east ship oil party ball left england formerly shape room
business written physical me drug bearing southwestern four species get own toward largest
base god much both cells our means kind tissue little heavy word herb amount mexico feeling
century heart regions horse less space now coast deep feet class natural based involving
lower growing located religious pink movement direction value forms designed paper colored
covered writer must flat general using go while science every school full chiefly study
early chemical pressure king narrow second mind above these energy showing object could mass
fire birds grown causing variety heat intended subject series mythology close term too
rather support annual noted home death until moving held company gas african development
women speech makes treat court field california compound cell matter major island within
nature last hold grey year atlantic function followed top purpose basic does interest sun
orange middle those forming motion come size india may male pacific president tall eyes
remove bc effect occurring cover former german seeds office lack gave official indian eye
organization art below provide men wind northeastern sexual style musical france pertaining
self wall dry thick belonging associated meat film age played fungi course legal sharp
specific plane normal service because quantity numerous again fabric inhabitant loss flower
slender writing night front whole warm character rock pain foot deciduous charge would hot
true just persons authority across thought highly created upper fishes fine turn australia
lines marine stems mental battle taken wine muscle coat members stock produce northwestern
languages took times theory letter table occurs bone bird developed tail cold expression
mouth level mountain iron event islands female covering smooth areas aromatic leaf knowledge
agent china showy present stage appearance holding job legs medicine machine wife distance
responsible sweet goods derived current treatment contains medium mother special producing
playing port cannot wild result served range soil bright program built respect care causes
events forces should attention growth still uses heads fragrant obtained students situation
organ salt vehicle case attack sugar team serving son active classifications filled studies
length inflammation element electric clear works able attached main personal run increase
erect don provides father voice flesh australian objects show ice clusters specified outside
concerned equipment fixed practice glass established performance relatively ocean branches
among terms muscles solid pale mountains separate player hands milk fruits grass said
measure flow fungus thing live call conditions keep solution army plays relation dress scale
republic temperate how data mark sides easily results sense see did pass vessel civil
suitable sudden italian mediterranean hemisphere according points called distributed waters
bring ornamental round roots ideas arms includes culture site neck disorder race leader
insects operation bacteria rich taking wide dance foliage got always due market done
aircraft production formal dead passage abnormal meaning ability hit next rate temperature
weight included broad best enemy ii edge popular doctrine clothing spread cloth became
excessive society individual composed flows giving strength elements love opening bark
medical teeth nerve half complete price board opposite catholic reddish brain electrical
influence carry star bed agency stone national modern completely holds lake experience
extreme baseball bad arm fast mostly testament fall even economic us particles systems
extinct engine problem carried perform dog divided christian closely resembles then straight
mineral extremely commercial return department door severe fluid university days evidence
union organic produces road look cutting officer outer forward possible prevent groups kept
pay five few germany infection naturalized seed weather went regular plan tube physics
police led reaction news monetary let russia difficult product beyond direct rank fresh
involved available real performed raised square travel radiation eurasian later following
supply division felt ferns organisms future lead record view drugs plate layer larger poet
wings steel policy principles aquatic racemes lost stop minor industrial founded upon
research combination books drink effort late speed inside never poisonous woody feelings
past break beginning enough motor breed terrestrial fern higher won noise cap clothes health
help formation gold longer student countries simple boat basis fear cream chief britain
capacity rays internal radio canada changes anything turned failure rules pattern painter
organism coming birth brought collection smaller tending financial cross running colors
effects paid magnetic laws express crystalline complex provided troops shell slow horses
mixture dried came behind marriage bank husband organs taste tried going third presence
japan loose highest measuring belief greater parents history bottom working far idea pieces
surgical image vein street famous arranged meeting bread sounds mammals also extent intense
floor local loud joint characteristics bodies root design connected informal discovered
composer coarse services rope drawn agreement activities yielding contract title story need
statement rights ends believed stem veins bill substances closed standard prepared
classification asian determine original account added alcohol nuclear rain hairy independent
gun hole letters pointed acts larvae cooked better security mechanical takes players
relative figure parallel container tool nervous feed properties else response per serves
cooking walls eating handle spanish freshwater arrangement yourself card communication crown
question defeated dense border emotional football lives foreign york accepted month gulf
berries providing expected applied religion six fact existence television vertical signal
domestic coastal pair carbon juice origin test drive cord location patient protect read
leather almost sized cotton start organized flight serious actor sold sex silver garment
oxygen text trained stalk trait names spiny teacher leave nose quickly painting suffering
john independence distinguished electronic walk nations artery bones chinese physicist
required contact numbers rapid bar method fat leading fibers rule feel egg big once exchange
federal injury worked powerful cattle angle ring desert rounded sports workers expressing
garden seat zealand parasitic russian danger violent importance prices colorless revolution
roof visible success payment ten section cavity speaking list yellowish stomach environment
passing originally strike extending display rose florida argument regarded hours judgment
reduce expressed exercise transmitted throughout primitive spirit fever affected italy
fleshy sauce international onto desire memory window dealing firm negative furniture draw
humans indicate opposed offensive facts suddenly labor entire sheep curved conduct timber
primarily kingdom pleasure received club eggs moral printed wheel role spring please movie
sale moved drawing ear essential tax stiff snow paint emotion composition introduced
community here bridge indies note grow mixed comprising intelligence superior chemistry
opinion waves insect asiatic gives carrying opponent secret bell ill rapidly minute final
atoms training fit boy train serve document rough lived metallic remembered reason absence
leg truth principle axis horizontal protective telephone volume inner spikes shrubby duty
materials japanese external sand write sky empire bay skill supplies needed seen opposition
constant industry died controlled forest enclosed poor diseases surrounding terrorist dull
indicating broken worker nation summer advance golf sleep determined atmosphere practices
store lying cheese develop becoming temporary novel private blow removed false occur grain
plastic strip distribution eaten pods orchids directly double box limited tone purposes
reduced membrane ready charged somewhat spain goal sum college generally status meet appear
meal artificial baby philosopher m units actions check date damage virtue path values speak
climbing defense literary himself supported analysis wire tissues gain unpleasant clean
target wet girl existing post institution beautiful wooden release rare spreading hope
measured crime processes block products appropriate saw valley hollow carries looked vessels
treated competition novels mainly resemble talk peninsula tinged easy stories quick find
cards try itself wave saint problems gland texas band rocks coffee soldiers evil population
income qualities network bodily alphabet procedure touch achieved changing punishment sign
regard resistance violet circular acting author distinct surgery typically pitch winter
professional armed park supporting visual picture x compounds blade biology beat tongue
chain peace raise engaged greenish terminal rise necessary suit moon address removal affairs
circle canal construction adult ships vine disposition oneself resident application sport
rest wrong mathematics audience slightly shot liver decision know sentence principal
resources tract architecture flavored statesman greece phrase mail operating fight positive
heard theater killed rome except c judge adjacent abnormally yet situated weed catch
scientific cars circuit electricity jewish scotland arctic relations airplane instruments
pipe fingers fell friends issue channel enter characters tiny vegetables nuts sent territory
married million interests places election fuel intensity requiring somebody create newspaper
ears cylindrical illness nothing breathing advantage hindu storage stand radioactive bitter
purplish golden plural criminal explosive example transmission exposure holy frame
consequence shoes deal dogs movements degrees doctor bound ireland philosophy caught typical
wrote economy education forth flowering pigment protein solitary southeast employed
protection song passed fill trouble doing preparation slowly discharge attractive bomb
literature shallow stream reading deeply sequence skilled printing acute valuable reference
column algae brief receive total tip powder empty cup brazil buildings urine separated
functions virus corn vines features frequently destroy possession distinctive smoke earlier
games inferior morning worth palm fur affecting constellation consists toxic destruction
upward symptoms traffic criticism chest rubber representation appointed items inhabitants
incapable genera miles cast message calendar reach tennis search score queen constituting
cost turkey singing weapons flexible matters snake glossy goddess baked responsibility
victory throw changed powers moves instead press fly artist disk vote nearly limbs
understanding tea seven snakes vision celestial coal brother variable moth hydrogen spoke
avoid recognized hour report transfer involves examination lot angles rod cancer faith utter
weak circumstances difficulty individuals spinal association didn lens proper fiber
components apart join normally centuries cases naval odor d egypt coextensive grasses butter
dangerous practical runs tough week funds duties repeated hat shoulder wheels chair bear
standing dancing signals bag cake scene lose bottle yields fatty lungs dinner abstract
stored beef project becomes since maintain pull attempt tight resort anger latin scottish
nucleus stars tendency molecules b worship sells towards resistant silvery pinnate credit
beings recording buy mechanism amounts spot kill extended daughter ordinary electromagnetic
commonly valued assigned houses oral freedom scales issued mexican scarlet layers deals
collectively understand weapon stress israel accompanied prior waste pope concern passes
clay unable immediately continuous least component frequency atom covers code standards
intellectual transparent wool illegal step insurance depression crowd uterus reality foods
beauty impossible wear honor secure atomic accept answer brownish creeping elongated
northwest equipped molecule discussion orchid dna carefully muslim speaker looking
excessively needs equivalent hebrew want wanted excess representing medieval teaching tumor
raw carnivorous rocky lay chicken average verb apparent management defeat passengers
sensation upright restaurant toes directed curve fully mild relationship outward clock
photographic flour biological dish pole stick secretary bony leathery spores brightly
washington ratio dialect chemist psychological broke sell verse opposing computers candidate
task obtain measures season mammal swimming irregular islamic yield jesus greyish
represented smile trust grammatical follow notes advanced finally say roll conversation
corporation justice classical painful trunk shoe screen council factor emperor divine bodied
calcium bluish fields pine pounds district represent physically flying wealth selling sole
"""
WORDS = tuple(LINES.split())
